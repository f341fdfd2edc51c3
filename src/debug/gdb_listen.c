/* Listening sockets for debuggers: see gdb_listen.h. */
#include "debug/gdb_listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/types.h"

static bool is_path(const char *address)
{
    return strchr(address, '/');
}

/* Splits HOST:PORT; an empty host is the loopback. */
static int address_split(const char *address, char host[256], char port[8], struct err *e)
{
    const char *colon = strrchr(address, ':');
    size_t len = colon ? (size_t)(colon - address) : 0;
    char *end;
    unsigned long number = colon ? strtoul(colon + 1, &end, 10) : 0;

    if (!colon || len >= 256 || colon[1] < '0' || colon[1] > '9' || *end || number > 65535)
        return err_set(e, -EINVAL, "'%s' must be HOST:PORT, :PORT, or the path of a socket (with a slash)", address);
    if (len >= 2 && *address == '[' && colon[-1] == ']') {
        address++;
        len -= 2;
    }
    snprintf(host, 256, "%.*s", len ? (int)len : 9, len ? address : "127.0.0.1");
    snprintf(port, 8, "%lu", number);
    return 0;
}

int gdb_address_check(const char *address, struct err *e)
{
    char host[256], port[8];

    if (!is_path(address))
        return address_split(address, host, port, e);
    if (strlen(address) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return err_set(e, -EINVAL, "'%s' is too long for a socket's path", address);
    return 0;
}

static int listen_at(const struct sockaddr *a, socklen_t len, const char *address, int *ret, struct err *e)
{
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1, r;

    if (fd < 0)
        return err_set(e, -errno, "--gdb %s: %s", address, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (!bind(fd, a, len) && !listen(fd, 1)) {
        *ret = fd;
        return 0;
    }
    r = err_set(e, -errno, "--gdb %s: %s", address, strerror(errno));
    close(fd);
    return r;
}

/* Left by a VM that is gone: nobody answers there. */
static void stale_socket_remove(const struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) && errno == ECONNREFUSED)
        unlink(a->sun_path);
    close(fd);
}

static int listen_unix(const char *path, int *ret, char shown[128], struct err *e)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    strcpy(a.sun_path, path); /* its length was checked */
    stale_socket_remove(&a);
    snprintf(shown, 128, "%s", path);
    return listen_at((struct sockaddr *)&a, sizeof(a), path, ret, e);
}

static void port_show(int fd, const char *host, char shown[128])
{
    struct sockaddr_in6 a = {0}; /* the port is where sockaddr_in has it */
    socklen_t len = sizeof(a);

    getsockname(fd, (struct sockaddr *)&a, &len);
    snprintf(shown, 128, strchr(host, ':') ? "[%.110s]:%d" : "%.110s:%d", host, ntohs(a.sin6_port));
}

static int listen_tcp(const char *address, int *ret, char shown[128], struct err *e)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    char host[256], port[8];
    int r = address_split(address, host, port, e);

    if (r)
        return r;
    r = getaddrinfo(host, port, &hints, &found);
    if (r)
        return err_set(e, -EADDRNOTAVAIL, "--gdb %s: %s", address, gai_strerror(r));
    r = listen_at(found->ai_addr, found->ai_addrlen, address, ret, e);
    freeaddrinfo(found);
    if (!r)
        port_show(*ret, host, shown);
    return r;
}

int gdb_listen(const char *address, int *ret, char shown[128], struct err *e)
{
    int r = gdb_address_check(address, e);

    if (r)
        return r;
    return is_path(address) ? listen_unix(address, ret, shown, e) : listen_tcp(address, ret, shown, e);
}
