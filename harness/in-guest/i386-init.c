// SPDX-License-Identifier: GPL-2.0
/*
 * All of the i386 guest's user space:
 *
 *	init kunit | TYPE
 *
 * runs the KUnit tests of the SGE builder, or the loop module on an RDMA device of
 * that type. Their KTAP goes to the second serial port, and then "status N".
 */
#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>

/* linux/socket.h does not tell them to user space */
#define AF_NETLINK	16
#define SOCK_RAW	3

#define NETDEV		"dummy0"
/* one device twice; the kernel gets the address by ip= */
#define LOOP_PARAMS	"src=10.9.0.1 dst=10.9.0.1"

static void finish(int status)
{
	printf("status %d\n", status);
	/* wait until the port has sent it */
	ioctl(STDOUT_FILENO, TCSBRK, 1);
	reboot(LINUX_REBOOT_CMD_RESTART);
}

static void die(const char *what)
{
	printf("Bail out! %s: error %d\n", what, errno);
	finish(1);
}

static void put_string(struct nlmsghdr *msg, int type, const char *value)
{
	struct nlattr *attr = (void *)msg + msg->nlmsg_len;

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + strlen(value) + 1;
	strcpy((char *)attr + NLA_HDRLEN, value);
	msg->nlmsg_len += NLA_ALIGN(attr->nla_len);
}

/* rdma link add r0 type TYPE netdev NETDEV */
static void link_add(const char *type)
{
	struct {
		struct nlmsghdr hdr;
		char attrs[128];
	} msg = {
		.hdr.nlmsg_len = NLMSG_HDRLEN,
		.hdr.nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV,
						   RDMA_NLDEV_CMD_NEWLINK),
		.hdr.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
	};
	struct {
		struct nlmsghdr hdr;
		struct nlmsgerr err;
		char rest[256];
	} ack;
	int fd = syscall(__NR_socket, AF_NETLINK, SOCK_RAW, NETLINK_RDMA);

	put_string(&msg.hdr, RDMA_NLDEV_ATTR_DEV_NAME, "r0");
	put_string(&msg.hdr, RDMA_NLDEV_ATTR_NDEV_NAME, NETDEV);
	put_string(&msg.hdr, RDMA_NLDEV_ATTR_LINK_TYPE, type);
	if (write(fd, &msg, msg.hdr.nlmsg_len) < 0 ||
	    read(fd, &ack, sizeof(ack)) < 0)
		die("RDMA netlink");
	errno = -ack.err.error;
	if (errno)
		die("RDMA_NLDEV_CMD_NEWLINK");
	close(fd);
}

static void cat(const char *path)
{
	int fd = open(path, O_RDONLY);
	char buf[4096];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		write(STDOUT_FILENO, buf, n);
	if (n < 0)
		die(path);
	close(fd);
}

/* The suite runs while its module is loaded. */
static void run(const char *path, const char *params, const char *results)
{
	int fd = open(path, O_RDONLY);

	if (syscall(__NR_finit_module, fd, params, 0) < 0)
		die(path);
	close(fd);
	cat(results);
}

int main(int argc, char **argv)
{
	const char *test = argc > 1 ? argv[1] : "";
	int fd = open("/dev/ttyS1", O_RDWR);

	dup2(fd, STDOUT_FILENO);
	/* tells that the guest got here */
	printf("# %s\n", test);
	if (mount("debugfs", "/debug", "debugfs", 0, NULL))
		die("debugfs");
	if (!strcmp(test, "kunit")) {
		run("/sge_kunit.ko", "", "/debug/kunit/rdma_sge/results");
		run("/rw_kunit.ko", "", "/debug/kunit/rdma_rw/results");
	} else {
		link_add(test);
		run("/rdma_loop.ko", LOOP_PARAMS,
		    "/debug/kunit/rdma_loop/results");
		if (syscall(__NR_delete_module, "rdma_loop", 0))
			printf("not ok 2 unload\n");
	}
	finish(0);
	return 0;
}
