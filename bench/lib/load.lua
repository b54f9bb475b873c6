-- What wrk sends, and what it says in the end: see lib/loaded.py.
--
--   wrk ... -s load.lua URL -- METHOD BYTES

function init(args)
    wrk.method = args[1]
    wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64)"
    wrk.headers["Accept"] = "*/*"
    wrk.headers["Accept-Encoding"] = "gzip, deflate"
    if tonumber(args[2]) > 0 then
        wrk.body = string.rep("x", tonumber(args[2]))
    end
    request = wrk.format()
end

function request()
    return request
end

function done(summary, latency)
    local errors = summary.errors
    io.stderr:write(string.format(
        '{"requests": %d, "us": %d, "bytes": %d, "p50_us": %d, ' ..
        '"p99_us": %d, "refused": %d, "broken": %d, "late": %d, ' ..
        '"not_2xx": %d}\n',
        summary.requests, summary.duration, summary.bytes,
        latency:percentile(50), latency:percentile(99), errors.connect,
        errors.read + errors.write, errors.timeout, errors.status))
end
