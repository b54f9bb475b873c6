"""The tarball and the Debian package, made with what is installed here."""

import hashlib
import pathlib
import re
import shutil
import subprocess

import pytest

from harness import nginx, settings
from test_docs import LINK, anchors

NAME = "libnginx-mod-http-myproxy"
DOC = f"usr/share/doc/{NAME}"

#: What a package has, besides a page for each of docs/ and examples/.
FILES = {
    "usr/bin/nginx-myproxy-migrate",
    "usr/lib/nginx/modules/ngx_http_myproxy_module.so",
    "usr/share/man/man1/nginx-myproxy-migrate.1.gz",
    "usr/share/nginx/modules-available/mod-http-myproxy.conf",
    f"{DOC}/README.md", f"{DOC}/SECURITY.md", f"{DOC}/changelog.gz",
    f"{DOC}/changelog.Debian.gz", f"{DOC}/copyright",
}


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True,
                          check=False, timeout=settings.PATIENCE * 30, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make(root, what, build):
    """What tools/package says that it has made."""
    return pathlib.Path(run(root / "tools/package", what, env={
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "BUILD": str(build),
        # nothing here looks at speed or at debugging, which take their time
        "DEB_CFLAGS_APPEND": "-O1 -g0",
        "DEB_BUILD_OPTIONS": "parallel=2 noautodbgsym",
    }).splitlines()[-1])


def unpack(tarball, into):
    run("tar", "-C", into, "-xzf", tarball)
    tree, = into.glob("ngx_http_myproxy_module-*")
    return tree


def broken_links(directory):
    """What leads nowhere within it, with the page that says so."""
    for page in directory.rglob("*.md"):
        for link in LINK.findall(page.read_text()):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not re.match(r"https?:", link) and not (
                    target.exists()
                    and (not anchor or anchor in anchors(target))):
                yield f"{page.relative_to(directory)}: {link}"


def missing():
    """Why no package can be made here, or None."""
    if settings.NGINX != "/usr/sbin/nginx" or nginx.product() != "nginx":
        return "the package is for the installed nginx"
    if settings.STOCK or settings.SANITIZED:
        return "the package has neither sanitizers nor the stock proxy"
    if not shutil.which("dh_nginx") or not shutil.which("dpkg-buildpackage"):
        return "nginx-dev or dpkg-dev is not installed"
    return None


def test_the_tarball_is_the_same_again_and_from_itself(tmp_path):
    first = make(settings.ROOT, "dist", tmp_path / "first")
    second = make(unpack(first, tmp_path), "dist", tmp_path / "second")
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    assert first.read_bytes() == second.read_bytes()
    assert (first.parent / "SHA256SUMS").read_text() == (
        f"{digest}  {first.name}\n")


@pytest.mark.timeout(600 * settings.SCALE)
def test_the_package_from_the_tarball(stage, tmp_path, monkeypatch):
    reason = missing()
    if reason:
        pytest.skip(reason)
    tree = unpack(make(settings.ROOT, "dist", tmp_path), tmp_path)
    package = make(tree, "deb", tmp_path)

    pages = {f"{DOC}/{path.relative_to(settings.ROOT)}"
             for directory in ("docs", "examples")
             for path in (settings.ROOT / directory).rglob("*")
             if not path.is_dir()}
    content = tmp_path / "content"
    run("dpkg-deb", "-x", package, content)
    assert {str(path.relative_to(content)) for path in content.rglob("*")
            if not path.is_dir()} == FILES | pages
    assert list(broken_links(content / DOC)) == []
    conf = content / "usr/share/nginx/modules-available/mod-http-myproxy.conf"
    assert conf.read_text() == (
        "load_module modules/ngx_http_myproxy_module.so;\n")

    depends = run("dpkg-deb", "-f", package, "Depends")
    abi = run("dpkg-query", "-W", "-f", "${Provides}", "nginx")
    assert re.search(r"nginx-abi-[^ ,]+", depends)[0] in abi
    assert run("dpkg-deb", "-f", package, "Version").split("-")[0] in tree.name

    tool = content / "usr/bin/nginx-myproxy-migrate"
    assert "  nginx-myproxy-migrate --apply" in run(tool, "--help")

    module = content / "usr/lib/nginx/modules/ngx_http_myproxy_module.so"
    origin = stage.origin()
    monkeypatch.setattr(settings, "MODULE", str(module))
    at_work = stage.nginx(location="myproxy_pass http://%{origin};")
    assert [at_work.get("/").status for _ in range(3)] == [200] * 3
    assert origin.connections == 1

    if not shutil.which("lintian"):
        pytest.skip("lintian is not installed")
    changes, = package.parent.glob("*.changes")
    assert run("lintian", changes) == ""
