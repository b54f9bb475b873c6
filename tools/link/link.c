/*
 * A link with a real round trip between two network namespaces.
 *
 *     link NAMESPACE-A NAMESPACE-B
 *
 * The namespaces are names in /run/netns.  In each one it makes a TUN device
 * "link0", 10.77.0.1/24 in A and 10.77.0.2/24 in B, brings lo up as well,
 * says "ready", and carries IPv4 packets between the two, each after a delay
 * of its own direction, in order.  Its orders come on standard input, one a
 * line; once one took effect it is answered with "ok", else with "error":
 *
 *     delay US      each packet from now on travels for so many microseconds
 *     hold A|B      packets from that side are kept
 *     release A|B   what was kept is delivered at once, and more as it comes
 *     drop A|B      what is on its way from that side is lost, and all that
 *                   follows until "release"
 *     forget        what belongs to a TCP connection of before is lost from
 *                   now on, in silence: as with a firewall that was restarted
 *     expire US     the same for each connection on which no packet has come
 *                   for so many microseconds; 0: for none
 *     count A|B     "ok SEEN QUEUED": packets that came from that side so
 *                   far, and those of them that are on their way
 *
 * It ends, and the devices with it, at the end of its standard input.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>


#define DEVICE      "link0"
#define MTU         1500
#define QUEUE_MAX   100000
#define BATCH       256
#define ROUNDS      100
#define FLOWS       (1 << 21)

#define TCP_SYN     0x02
#define TCP_ACK     0x10


typedef struct packet_s  packet_t;

struct packet_s {
    packet_t   *next;
    uint64_t    due;       /* nanoseconds of CLOCK_MONOTONIC */
    size_t      size;
    char        data[];
};


/* what travels from one side to the other */

typedef struct {
    int         from;
    int         to;

    packet_t   *first;
    packet_t  **last;

    unsigned    held:1;
    unsigned    dropped:1;

    unsigned long  seen;
    unsigned long  queued;
} way_t;


/* a TCP connection, by its ports; the addresses are always the same */

typedef struct {
    uint32_t    ports;     /* of A and of B; 0: there is none here */
    uint64_t    last;      /* the last packet came then */
    unsigned    forgotten:1;
} flow_t;


static way_t     ways[2];
static uint64_t  delay;

static flow_t    flows[FLOWS];
static unsigned  nflows;
static uint64_t  expiry;   /* nanoseconds; 0: none */


static int open_device(const char *name, const char *address);
static void set_up(int sock, const char *device, const char *address);
static int collect(way_t *way);
static int is_known(way_t *way, unsigned char *data, size_t size);
static flow_t *find_flow(uint32_t ports);
static void deliver(way_t *way, uint64_t until);
static void discard(way_t *way);
static void take(way_t *way);
static int read_orders(void);
static void obey(char *line);
static uint64_t now(void);
static void die(const char *format, ...);


int
main(int argc, char **argv)
{
    int               i, n, more, timed;
    uint64_t          current, next;
    struct pollfd     fds[3];
    struct timespec   wait;

    if (argc != 3) {
        die("usage: link NAMESPACE-A NAMESPACE-B");
    }

    /* or else the kernel is free to wake us 50 microseconds late */
    (void) prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);

    ways[0].from = ways[1].to = open_device(argv[1], "10.77.0.1");
    ways[1].from = ways[0].to = open_device(argv[2], "10.77.0.2");
    ways[0].last = &ways[0].first;
    ways[1].last = &ways[1].first;

    (void) fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");

    fds[0].fd = ways[0].from;
    fds[1].fd = ways[1].from;
    fds[2].fd = STDIN_FILENO;
    fds[0].events = fds[1].events = fds[2].events = POLLIN;

    for ( ;; ) {
        next = UINT64_MAX;

        for (i = 0; i < 2; i++) {
            deliver(&ways[i], now());

            if (ways[i].first && !ways[i].held && ways[i].first->due < next) {
                next = ways[i].first->due;
            }
        }

        current = now();
        timed = (next != UINT64_MAX);
        next = (timed && next > current) ? next - current : 0;
        wait.tv_sec = next / 1000000000;
        wait.tv_nsec = next % 1000000000;

        if (ppoll(fds, 3, timed ? &wait : NULL, NULL) == -1
            && errno != EINTR)
        {
            die("ppoll: %s", strerror(errno));
        }

        /* packets that were there before an order are subject to it */

        n = 0;

        do {
            more = collect(&ways[0]) | collect(&ways[1]);
        } while (more && fds[2].revents && ++n < ROUNDS);

        if (fds[2].revents && read_orders() == -1) {
            return 0;
        }
    }
}


/* The device in that namespace, up and with that address. */

static int
open_device(const char *name, const char *address)
{
    int           fd, ns, sock;
    char          path[256];
    struct ifreq  ifr;

    (void) snprintf(path, sizeof(path), "/run/netns/%s", name);

    ns = open(path, O_RDONLY|O_CLOEXEC);
    if (ns == -1 || setns(ns, CLONE_NEWNET) == -1) {
        die("namespace %s: %s", path, strerror(errno));
    }

    close(ns);

    fd = open("/dev/net/tun", O_RDWR|O_NONBLOCK|O_CLOEXEC);
    if (fd == -1) {
        die("/dev/net/tun: %s", strerror(errno));
    }

    memset(&ifr, 0, sizeof(ifr));
    strcpy(ifr.ifr_name, DEVICE);
    ifr.ifr_flags = IFF_TUN|IFF_NO_PI;

    if (ioctl(fd, TUNSETIFF, &ifr) == -1) {
        die("TUNSETIFF: %s", strerror(errno));
    }

    sock = socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, 0);
    if (sock == -1) {
        die("socket: %s", strerror(errno));
    }

    set_up(sock, DEVICE, address);
    set_up(sock, "lo", NULL);
    close(sock);

    return fd;
}


static void
set_up(int sock, const char *device, const char *address)
{
    struct ifreq         ifr;
    struct sockaddr_in  *sin;

    memset(&ifr, 0, sizeof(ifr));
    strcpy(ifr.ifr_name, device);
    sin = (struct sockaddr_in *) &ifr.ifr_addr;

    if (address) {
        sin->sin_family = AF_INET;
        sin->sin_addr.s_addr = inet_addr(address);
        if (ioctl(sock, SIOCSIFADDR, &ifr) == -1) {
            die("%s, address: %s", device, strerror(errno));
        }

        sin->sin_addr.s_addr = inet_addr("255.255.255.0");
        if (ioctl(sock, SIOCSIFNETMASK, &ifr) == -1) {
            die("%s, netmask: %s", device, strerror(errno));
        }

        /* what the kernel keeps until we have read it */
        ifr.ifr_qlen = 10000;
        if (ioctl(sock, SIOCSIFTXQLEN, &ifr) == -1) {
            die("%s, queue: %s", device, strerror(errno));
        }
    }

    if (ioctl(sock, SIOCGIFFLAGS, &ifr) == -1) {
        die("%s, flags: %s", device, strerror(errno));
    }

    ifr.ifr_flags |= IFF_UP|IFF_RUNNING;

    if (ioctl(sock, SIOCSIFFLAGS, &ifr) == -1) {
        die("%s, up: %s", device, strerror(errno));
    }
}


/* Takes what the kernel of the sending side has for us; 1: not all of it. */

static int
collect(way_t *way)
{
    int        n;
    char       buffer[MTU];
    ssize_t    size;
    packet_t  *packet;

    for (n = 0; n < BATCH; n++) {

        size = read(way->from, buffer, sizeof(buffer));
        if (size <= 0) {
            return 0;
        }

        /* IPv6 looks for its neighbours; nobody asked for that */

        if ((buffer[0] >> 4 & 0xf) != 4) {
            continue;
        }

        way->seen++;

        if (way->dropped || way->queued == QUEUE_MAX
            || !is_known(way, (unsigned char *) buffer, size))
        {
            continue;
        }

        packet = malloc(sizeof(packet_t) + size);
        if (packet == NULL) {
            die("no memory");
        }

        packet->next = NULL;
        packet->due = now() + delay;
        packet->size = size;
        memcpy(packet->data, buffer, size);

        *way->last = packet;
        way->last = &packet->next;
        way->queued++;
    }

    return 1;
}


/* Whether a packet belongs to nothing that was forgotten. */

static int
is_known(way_t *way, unsigned char *data, size_t size)
{
    size_t          head;
    flow_t         *flow;
    uint32_t        from, to;
    uint64_t        current;
    unsigned char  *tcp;

    head = (data[0] & 0xf) * 4;

    if (size < head + 20 || data[9] != IPPROTO_TCP) {
        return 1;
    }

    tcp = data + head;
    from = tcp[0] << 8 | tcp[1];
    to = tcp[2] << 8 | tcp[3];

    flow = find_flow((way == &ways[0]) ? from << 16 | to : to << 16 | from);
    current = now();

    if ((tcp[13] & (TCP_SYN|TCP_ACK)) == TCP_SYN) {
        flow->forgotten = 0;

    } else if (expiry && current - flow->last > expiry) {
        flow->forgotten = 1;
    }

    if (flow->forgotten) {
        return 0;
    }

    flow->last = current;

    return 1;
}


static flow_t *
find_flow(uint32_t ports)
{
    unsigned  i;

    i = (ports ^ ports >> 16) % FLOWS;

    while (flows[i].ports && flows[i].ports != ports) {
        i = (i + 1) % FLOWS;
    }

    if (flows[i].ports == 0) {

        if (++nflows == FLOWS) {
            die("too many connections");
        }

        flows[i].ports = ports;
        flows[i].last = now();
    }

    return &flows[i];
}


/* Hands over what is due by then. */

static void
deliver(way_t *way, uint64_t until)
{
    packet_t  *packet;

    if (way->held) {
        return;
    }

    while ((packet = way->first) != NULL && packet->due <= until) {

        if (write(way->to, packet->data, packet->size) == -1
            && errno == EAGAIN)
        {
            return;
        }

        take(way);
    }
}


static void
discard(way_t *way)
{
    while (way->first) {
        take(way);
    }
}


static void
take(way_t *way)
{
    packet_t  *packet;

    packet = way->first;

    way->first = packet->next;
    if (way->first == NULL) {
        way->last = &way->first;
    }

    way->queued--;
    free(packet);
}


/* Obeys all orders that have come; -1: there will be no more. */

static int
read_orders(void)
{
    char           *end;
    ssize_t         n;
    static char     line[128];
    static size_t   length;

    n = read(STDIN_FILENO, line + length, sizeof(line) - 1 - length);
    if (n == -1) {
        return (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    }

    if (n == 0) {
        return -1;
    }

    length += n;

    while ((end = memchr(line, '\n', length)) != NULL) {
        *end++ = '\0';
        obey(line);
        length -= end - line;
        memmove(line, end, length);
    }

    return (length == sizeof(line) - 1) ? -1 : 0;
}


static void
obey(char *line)
{
    char       side;
    char       order[16];
    way_t     *way;
    unsigned   i, us;

    if (sscanf(line, "delay %u", &us) == 1) {
        delay = us * UINT64_C(1000);
        puts("ok");
        return;
    }

    if (sscanf(line, "expire %u", &us) == 1) {
        expiry = us * UINT64_C(1000);
        puts("ok");
        return;
    }

    if (strcmp(line, "forget") == 0) {
        for (i = 0; i < FLOWS; i++) {
            flows[i].forgotten = 1;
        }

        puts("ok");
        return;
    }

    if (sscanf(line, "%15s %c", order, &side) != 2
        || (side != 'A' && side != 'B'))
    {
        puts("error");
        return;
    }

    way = &ways[side == 'B'];

    if (strcmp(order, "hold") == 0) {
        way->held = 1;

    } else if (strcmp(order, "release") == 0) {
        way->held = 0;
        way->dropped = 0;
        deliver(way, UINT64_MAX);

    } else if (strcmp(order, "drop") == 0) {
        way->dropped = 1;
        discard(way);

    } else if (strcmp(order, "count") == 0) {
        printf("ok %lu %lu\n", way->seen, way->queued);
        return;

    } else {
        puts("error");
        return;
    }

    puts("ok");
}


static uint64_t
now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000 + ts.tv_nsec;
}


static void
die(const char *format, ...)
{
    va_list  args;

    fputs("link: ", stderr);

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);

    fputc('\n', stderr);
    exit(1);
}
