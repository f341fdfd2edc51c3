/* `skerry image build debian`: a bootable Debian guest, made from Debian's own packages.
 *
 * mmdebstrap unpacks and configures the packages into a tar file, with hooks that give the guest its hostname,
 * network and console; pack.sh turns that into an ext4 disk image with mke2fs -d. Neither needs a mount of ours, so
 * an ordinary user can do it where the host allows user namespaces. The scripts are in images/debian/ and are part
 * of this program.
 *
 * All is made in a folder beside the image and renamed at the end: a build that was broken off leaves nothing. */
#include "cli/cli.h"

#include "base/log.h"
#include "cli/child.h"
#include "cli/image.h"
#include "cli/option.h"
#include "cli/quantity.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern const char debian_initramfs_sh[], debian_setup_sh[], debian_pack_sh[];

#define DEBIAN_PACKAGES \
    "systemd-sysv,udev,dbus,kmod,lz4,iproute2,iputils-ping,ca-certificates,curl,procps,less,nano,e2fsprogs"
#define SIZE_MIN MIB(512)
#define SIZE_MAX_BYTES (GIB(1) * 1024 * 16) /* what ext4 with 4 KiB blocks and 32-bit block numbers can hold */

/* What is asked for, and what must be undone. */
struct image_build {
    const char *system; /* the operand */
    const char *suite, *kernel, *with, *hostname;
    u64 size;
    char out[PATH_MAX];
    char folder[PATH_MAX + 16]; /* the temporary one; empty: not made */
    char *ssh_key;              /* the key's text, malloc'd */
    bool force;
};

static int name_check(const char *value, const char *what, const char *more, struct err *e)
{
    size_t good = 0;

    while ((value[good] >= 'a' && value[good] <= 'z') || (value[good] >= '0' && value[good] <= '9') ||
           (value[good] && good && strchr(more, value[good])))
        good++;
    return *value && !value[good] ? 0 : err_set(e, -EINVAL, "'%s' is no name of %s", value, what);
}

static int set_out(void *ctx, const char *value, struct err *e)
{
    struct image_build *b = ctx;

    if (!*value || snprintf(b->out, sizeof(b->out), "%s", value) >= (int)sizeof(b->out))
        return err_set(e, -EINVAL, "no usable file name");
    return 0;
}

static int set_size(void *ctx, const char *value, struct err *e)
{
    struct image_build *b = ctx;

    if (!quantity_size(value, &b->size))
        return err_set(e, -EINVAL, "'%s' is no size; write it as 2G", value);
    if (b->size < SIZE_MIN || b->size > SIZE_MAX_BYTES || b->size % MIB(1))
        return err_set(e, -EINVAL, "'%s' must be a whole number of MiB, from 512M to 16384G", value);
    return 0;
}

static int set_suite(void *ctx, const char *value, struct err *e)
{
    ((struct image_build *)ctx)->suite = value;
    return name_check(value, "a Debian suite; the current one is bookworm", "-", e);
}

static int set_kernel(void *ctx, const char *value, struct err *e)
{
    ((struct image_build *)ctx)->kernel = value;
    if (!strcmp(value, "amd64") || !strcmp(value, "cloud-amd64") || !strcmp(value, "rt-amd64"))
        return 0;
    return err_set(e, -EINVAL, "no kernel '%s'; there are: cloud-amd64, amd64, rt-amd64", value);
}

static int set_with(void *ctx, const char *value, struct err *e)
{
    ((struct image_build *)ctx)->with = value;
    return name_check(value, "packages; write them as openssh-server,gcc", "+-.,", e);
}

static int set_hostname(void *ctx, const char *value, struct err *e)
{
    ((struct image_build *)ctx)->hostname = value;
    return strlen(value) > 63 ? err_set(e, -EINVAL, "longer than 63 bytes") : name_check(value, "a host", "-", e);
}

static int set_ssh_key(void *ctx, const char *value, struct err *e)
{
    struct image_build *b = ctx;
    char text[16384];
    ssize_t n;
    int fd = open(value, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_set(e, -errno, "'%s': %m", value);
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return err_set(e, -EINVAL, "'%s' cannot be read or is empty", value);
    text[n] = 0;
    if (strstr(text, "PRIVATE KEY"))
        return err_set(e, -EINVAL, "'%s' is a private key; give the public one, '%s.pub'", value, value);
    if (strncmp(text, "ssh-", 4) && strncmp(text, "ecdsa-", 6) && strncmp(text, "sk-", 3))
        return err_set(e, -EINVAL, "'%s' is no SSH public key", value);
    free(b->ssh_key);
    b->ssh_key = strdup(text);
    return b->ssh_key ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int set_force(void *ctx, const char *value, struct err *e)
{
    ((struct image_build *)ctx)->force = true;
    return 0;
}

static int set_system(void *ctx, const char *arg, struct err *e)
{
    struct image_build *b = ctx;

    if (b->system)
        return err_set(e, -EINVAL, "one system at a time: '%s' or '%s'", b->system, arg);
    b->system = arg;
    return strcmp(arg, "debian") ? err_set(e, -EINVAL, "no recipe for '%s'; there is: debian", arg) : 0;
}

static const struct option_spec options[] = {
    {"out", 0, "FILE", set_out,
     "the disk image, qcow2 if its name ends so, else raw; the\nkernel and the initial RAM disk get its name with\n"
     ".vmlinuz and .initrd. Default:\n~/.cache/skerry/debian-SUITE.img"},
    {"size", 0, "SIZE", set_size, "the disk's size, 2G if left out; the file is sparse"},
    {"suite", 0, "NAME", set_suite, "Debian's release: bookworm (the default), trixie, sid, …"},
    {"kernel", 0, "FLAVOUR", set_kernel, "cloud-amd64 (the default, small), amd64 or rt-amd64"},
    {"with", 0, "PACKAGE,...", set_with, "install these too, as openssh-server,gcc"},
    {"hostname", 0, "NAME", set_hostname, "the guest's name, debian if left out"},
    {"ssh-key", 0, "FILE", set_ssh_key,
     "let the owner of this public key log in as root by SSH\n(installs openssh-server)"},
    {"force", 0, NULL, set_force, "replace the files if they exist"},
    {0},
};
static const struct option_set option_set = {"image build", options, set_system};

static void build_help(void)
{
    printf("skerry image build: make a bootable guest from a distribution's packages.\n\n"
           "Usage: skerry image build debian [OPTION]...\n\n");
    option_print(options, stdout);
    printf("\nThe guest asks for its address by DHCP and opens a root shell on its serial console. Needs mmdebstrap\n"
           "and e2fsprogs; without root also uidmap, and a host that lets users make user namespaces.\n"
           "\nExamples:\n"
           "  skerry image build debian\n"
           "  skerry image build debian --out node.img --size 20G --with gcc --ssh-key ~/.ssh/id_ed25519.pub\n");
}

/* FILE.img, FILE.qcow2, FILE: FILE with another ending. */
static void sibling_name(const struct image_build *b, const char *ending, char name[PATH_MAX + 16])
{
    const char *file = strrchr(b->out, '/'), *dot = strrchr(file ? file : b->out, '.');

    snprintf(name, PATH_MAX + 16, "%.*s%s", dot ? (int)(dot - b->out) : (int)strlen(b->out), b->out, ending);
}

/* Makes each folder above `path`. */
static int parents_make(const char *path, struct err *e)
{
    char part[PATH_MAX];

    snprintf(part, sizeof(part), "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(part, 0777) && errno != EEXIST)
            return err_set(e, -errno, "cannot make the folder '%s': %m", part);
        *slash = '/';
    }
    return 0;
}

static int out_default(struct image_build *b, struct err *e)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool own = !cache || cache[0] != '/';

    if (b->out[0])
        return 0;
    if (own && (!home || !*home))
        return err_set(e, -EINVAL, "no home folder to put the image into; name a file with --out");
    snprintf(b->out, sizeof(b->out), "%s%s/skerry/debian-%s.img", own ? home : cache, own ? "/.cache" : "", b->suite);
    return parents_make(b->out, e);
}

static bool program_exists(const char *name)
{
    char path[PATH_MAX * 4], *rest = path, *folder, file[PATH_MAX];

    snprintf(path, sizeof(path), "%s", getenv("PATH"));
    while ((folder = strsep(&rest, ":")) != NULL) {
        snprintf(file, sizeof(file), "%s/%s", folder, name);
        if (!access(file, X_OK))
            return true;
    }
    return false;
}

/* mke2fs lives in /usr/sbin, which is not in an ordinary user's PATH. */
static void path_extend(void)
{
    char path[PATH_MAX * 4];

    snprintf(path, sizeof(path), "%s:/usr/sbin:/sbin", getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
    setenv("PATH", path, 1);
}

static int tools_check(struct err *e)
{
    static const struct {
        const char *program, *package;
    } tools[] = {{"mmdebstrap", "mmdebstrap"}, {"mke2fs", "e2fsprogs"}, {"newuidmap", "uidmap"}};

    for (size_t i = 0; i < ARRAY_SIZE(tools) - !geteuid(); i++) /* root needs no newuidmap */
        if (!program_exists(tools[i].program))
            return err_set(e, -ENOENT, "%s is missing: install it with 'apt-get install %s'", tools[i].program,
                           tools[i].package);
    if (geteuid() && child_run((char *[]){"unshare", "--user", "--map-auto", "--map-root-user", "true", NULL}, e))
        return err_set(e, -EPERM, "this host does not let you make user namespaces; run this as root");
    return 0;
}

static int existing_check(const struct image_build *b, struct err *e)
{
    if (b->force || access(b->out, F_OK))
        return 0;
    return err_set(e, -EEXIST, "'%s' exists; name another file with --out, or replace it with --force", b->out);
}

static int unlink_entry(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    remove(path);
    return 0;
}

static void folder_remove(const struct image_build *b)
{
    if (b->folder[0])
        nftw(b->folder, unlink_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static int folder_make(struct image_build *b, struct err *e)
{
    char name[sizeof(b->folder)];

    snprintf(name, sizeof(name), "%s.XXXXXX", b->out);
    if (!mkdtemp(name))
        return err_set(e, -errno, "cannot write beside '%s': %m", b->out);
    strcpy(b->folder, name);
    chmod(b->folder, 0755); /* mmdebstrap's user namespace must reach the files */
    return 0;
}

/* The hooks travel in the environment: as files they might be out of reach of mmdebstrap's user namespace, and as
 * arguments it would print them. */
static int bootstrap(const struct image_build *b, struct err *e)
{
    char include[8192], tar[sizeof(b->folder) + 16];
    char *argv[] = {"mmdebstrap",
                    "--variant=minbase",
                    geteuid() ? "--mode=unshare" : "--mode=auto",
                    "--essential-hook=sh -c \"$SKERRY_INITRAMFS\" initramfs.sh \"$1\"",
                    "--customize-hook=sh -c \"$SKERRY_SETUP\" setup.sh \"$1\"",
                    include,
                    (char *)b->suite,
                    tar,
                    NULL};

    if (snprintf(include, sizeof(include), "--include=%s,linux-image-%s%s%s%s", DEBIAN_PACKAGES, b->kernel,
                 b->ssh_key ? ",openssh-server" : "", b->with ? "," : "",
                 b->with ? b->with : "") >= (int)sizeof(include))
        return err_set(e, -EINVAL, "--with: too many packages");
    snprintf(tar, sizeof(tar), "%s/rootfs.tar", b->folder);
    setenv("SKERRY_INITRAMFS", debian_initramfs_sh, 1);
    setenv("SKERRY_SETUP", debian_setup_sh, 1);
    setenv("SKERRY_HOSTNAME", b->hostname, 1);
    setenv("SKERRY_SSH_KEY", b->ssh_key ? b->ssh_key : "", 1);
    return child_run(argv, e);
}

static int pack(const struct image_build *b, struct err *e)
{
    char size[32];
    char *argv[] = {"unshare", "--user", "--map-auto", "--map-root-user", /* in front of what root runs directly */
                    "sh", "-c", (char *)debian_pack_sh, "pack.sh", (char *)b->folder, size, NULL};

    snprintf(size, sizeof(size), "%llu", (unsigned long long)b->size);
    return child_run(geteuid() ? argv : argv + 4, e);
}

/* The finished disk takes the format that the file's name asks for. */
static int disk_convert(const struct image_build *b, struct err *e)
{
    const char *dot = strrchr(b->out, '.');
    char raw[sizeof(b->folder) + 16], qcow2[sizeof(b->folder) + 16];

    if (!dot || strcmp(dot, ".qcow2"))
        return 0;
    snprintf(raw, sizeof(raw), "%s/disk", b->folder);
    snprintf(qcow2, sizeof(qcow2), "%s/disk.qcow2", b->folder);
    if (cli_image_convert(7, (char *[]){"convert", "-f", "raw", "-O", "qcow2", raw, qcow2, NULL}))
        return err_set(e, -EIO, "cannot make a qcow2 image of the disk");
    return rename(qcow2, raw) ? err_set(e, -errno, "'%s': %m", raw) : 0;
}

static int file_move(const struct image_build *b, const char *from, const char *to, struct err *e)
{
    char path[sizeof(b->folder) + 16];

    snprintf(path, sizeof(path), "%s/%s", b->folder, from);
    return rename(path, to) ? err_set(e, -errno, "cannot make '%s': %m", to) : 0;
}

/* The disk comes last: where it is, the other two are. */
static int files_publish(const struct image_build *b, struct err *e)
{
    char kernel[PATH_MAX + 16], initrd[PATH_MAX + 16];

    sibling_name(b, ".vmlinuz", kernel);
    sibling_name(b, ".initrd", initrd);
    if (file_move(b, "kernel", kernel, e) || file_move(b, "initrd", initrd, e) || file_move(b, "disk", b->out, e))
        return e->code;
    printf("Boot it with:\n  skerry run --kernel %s --initrd %s \\\n    --disk %s", kernel, initrd, b->out);
    printf(" --append 'root=/dev/vda console=ttyS0' --memory 1G\n");
    return 0;
}

static int build(struct image_build *b, struct err *e)
{
    char size[32];

    if (!b->system)
        return err_set(e, -EINVAL, "which system? 'skerry image build debian'");
    path_extend();
    if (tools_check(e) || out_default(b, e) || existing_check(b, e) || folder_make(b, e))
        return e->code;
    log_info("[1/2] Debian %s: fetching and configuring packages", b->suite);
    if (bootstrap(b, e))
        return e->code;
    log_info("[2/2] writing %s, %s", b->out, quantity_format(b->size, size));
    return pack(b, e) || disk_convert(b, e) || files_publish(b, e) ? e->code : 0;
}

int cli_image_build(int argc, char **argv)
{
    struct image_build b = {.suite = "bookworm", .kernel = "cloud-amd64", .hostname = "debian", .size = GIB(2)};
    struct err e;
    int status = 0;

    switch (option_parse(&option_set, argc, argv, &b, &e)) {
    case 0:
        if (build(&b, &e))
            status = b.system ? CLI_FAILURE : CLI_USAGE;
        folder_remove(&b);
        break;
    case OPTION_HELP:
        build_help();
        break;
    default:
        status = CLI_USAGE;
    }
    if (status)
        log_error("%s", e.text);
    free(b.ssh_key);
    return status;
}
