/* Packets between a VM process and its starter: see vm_channel.h. */
#include "proto/vm_channel.h"

#include "proto/json_fields.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PACKET_MAX 262144

static const char *const end_names[VM_END_COUNT + 1] = {
    [VM_END_POWER_OFF] = "power-off",
    [VM_END_RESET] = "reset",
    [VM_END_TRIPLE_FAULT] = "triple-fault",
    [VM_END_DEBUG_EXIT] = "debug-exit",
    [VM_END_TIMEOUT] = "timeout",
    [VM_END_QUIT] = "quit",
    [VM_END_FAILED] = "failed",
};

/* struct vm_ended as the tables can hold it */
struct ended_fields {
    unsigned why;
    int value;
    char *text;
};
static const struct json_field ended_fields[] = {
    {"why", JSON_FIELD_NAME, offsetof(struct ended_fields, why), 0, 0, end_names},
    {"value", JSON_FIELD_INT, offsetof(struct ended_fields, value), 0, 255, NULL},
    {"text", JSON_FIELD_TEXT, offsetof(struct ended_fields, text), 0, sizeof(((struct vm_ended *)0)->text) - 1, NULL},
    {0},
};
static const char *const ended_others[] = {"type", NULL};

int vm_channel_create(int fd[2], struct err *e)
{
    int room = PACKET_MAX;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd))
        return err_set(e, -errno, "cannot make a socket pair: %m");
    for (int i = 0; i < 2; i++)
        setsockopt(fd[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)); /* best effort: most configurations are small */
    return 0;
}

/* Sends and frees a JSON text. */
static int packet_send(int fd, char *text, struct err *e)
{
    ssize_t n;

    if (!text)
        return err_set(e, -ENOMEM, "out of memory");
    do
        n = send(fd, text, strlen(text), MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    free(text);
    return n < 0 ? err_set(e, -errno, "cannot reach the other process: %m") : 0;
}

/* Waits for the next packet; *ret is malloc'd. */
static int packet_recv(int fd, char **ret, size_t *ret_len, struct err *e)
{
    char *buf = malloc(PACKET_MAX);
    ssize_t n;

    if (!buf)
        return err_set(e, -ENOMEM, "out of memory");
    do
        n = recv(fd, buf, PACKET_MAX, 0);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        *ret = buf;
        *ret_len = (size_t)n;
        return 0;
    }
    free(buf);
    if (n < 0 && errno != ECONNRESET)
        return err_set(e, -errno, "channel: %m");
    return err_set(e, -EPIPE, "the other process closed the channel");
}

int vm_channel_send_config(int fd, const struct vm_config *c, struct err *e)
{
    char *text;

    return vm_config_encode(c, &text, e) ? e->code : packet_send(fd, text, e);
}

int vm_channel_recv_config(int fd, struct vm_config *ret, struct err *e)
{
    char *text;
    size_t len;

    if (packet_recv(fd, &text, &len, e))
        return e->code;
    e->code = vm_config_decode(text, len, ret, e);
    free(text);
    return e->code;
}

int vm_channel_send_ended(int fd, const struct vm_ended *ended, struct err *e)
{
    struct ended_fields f = {ended->why, ended->value, (char *)ended->text};
    json_t *object = json_fields_encode(ended_fields, &f);
    char *text;

    if (!object) { /* the sentence quotes a name that is not UTF-8: better told without it than not at all */
        f.text = NULL;
        object = json_fields_encode(ended_fields, &f);
    }
    json_object_set_new(object, "type", json_string("ended"));
    text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return packet_send(fd, text, e);
}

static int ended_decode(const json_t *object, struct vm_ended *ret, struct err *e)
{
    struct ended_fields f = {VM_END_FAILED, 0, NULL};
    const char *type = json_string_value(json_object_get(object, "type"));

    if (!type || strcmp(type, "ended"))
        return err_set(e, -EPROTO, "channel: a packet that is not 'ended'");
    if (!json_fields_decode(ended_fields, object, ended_others, &f, e)) {
        *ret = (struct vm_ended){.why = f.why, .value = f.value};
        snprintf(ret->text, sizeof(ret->text), "%s", f.text ? f.text : "");
        e->code = 0;
    }
    json_fields_free(ended_fields, &f);
    return e->code;
}

int vm_channel_recv_ended(int fd, struct vm_ended *ret, struct err *e)
{
    json_t *object;
    char *text;
    size_t len;

    if (packet_recv(fd, &text, &len, e))
        return e->code;
    object = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    e->code = ended_decode(object, ret, e);
    json_decref(object);
    return e->code;
}
