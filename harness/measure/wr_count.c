// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Count what kernel ULPs post to the send queues of devices.
 *
 *	insmod wr_count.ko devices=r0,r1
 *	cat /sys/kernel/debug/wr_count
 *
 * prints for each device and opcode how many WRs, SGEs and bytes: of an IB_WR_REG_MR
 * those of the MR. What is written to the file sets all to 0.
 */
#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <rdma/ib_verbs.h>

#define COUNT_DEVICES	4
#define COUNT_OPCODES	(IB_WR_REG_MR_INTEGRITY + 1)

static char *devices[COUNT_DEVICES];
static int nr_devices;
module_param_array(devices, charp, &nr_devices, 0444);
MODULE_PARM_DESC(devices, "names of the devices");

static struct count {
	struct ib_device *dev;
	int (*post_send)(struct ib_qp *qp, const struct ib_send_wr *wr,
			 const struct ib_send_wr **bad_wr);
	struct {
		atomic64_t wrs, sges, bytes;
	} of[COUNT_OPCODES];
} counts[COUNT_DEVICES];
static struct dentry *count_file;

static int count_post_send(struct ib_qp *qp, const struct ib_send_wr *first,
			   const struct ib_send_wr **bad_wr)
{
	const struct ib_send_wr *wr;
	struct count *count = counts;
	u64 bytes;
	int i;

	while (count->dev != qp->device)
		count++;
	for (wr = first; wr; wr = wr->next) {
		if (wr->opcode >= COUNT_OPCODES)
			continue;
		bytes = wr->opcode == IB_WR_REG_MR ? reg_wr(wr)->mr->length : 0;
		for (i = 0; i < wr->num_sge; i++)
			bytes += wr->sg_list[i].length;
		atomic64_inc(&count->of[wr->opcode].wrs);
		atomic64_add(wr->num_sge, &count->of[wr->opcode].sges);
		atomic64_add(bytes, &count->of[wr->opcode].bytes);
	}
	return count->post_send(qp, first, bad_wr);
}

static int count_show(struct seq_file *file, void *unused)
{
	struct count *count;
	int i;

	for (count = counts; count < counts + nr_devices && count->dev; count++)
		for (i = 0; i < COUNT_OPCODES; i++)
			if (atomic64_read(&count->of[i].wrs))
				seq_printf(file, "%s %d %lld %lld %lld\n",
					   dev_name(&count->dev->dev), i,
					   atomic64_read(&count->of[i].wrs),
					   atomic64_read(&count->of[i].sges),
					   atomic64_read(&count->of[i].bytes));
	return 0;
}

static ssize_t count_write(struct file *file, const char __user *buf,
			   size_t len, loff_t *pos)
{
	int i;

	for (i = 0; i < nr_devices; i++)
		memset(counts[i].of, 0, sizeof(counts[i].of));
	return len;
}

DEFINE_SHOW_STORE_ATTRIBUTE(count);

static int count_add(struct ib_device *dev)
{
	int i;

	for (i = 0; i < nr_devices; i++) {
		if (strcmp(devices[i], dev_name(&dev->dev)))
			continue;
		counts[i].dev = dev;
		counts[i].post_send = dev->ops.post_send;
		dev->ops.post_send = count_post_send;
		return 0;
	}
	return -ENODEV;
}

static void count_remove(struct ib_device *dev, void *unused)
{
	struct count *count = counts;

	while (count->dev != dev)
		count++;
	dev->ops.post_send = count->post_send;
	count->dev = NULL;
}

static struct ib_client count_client = {
	.name	= "wr_count",
	.add	= count_add,
	.remove	= count_remove,
};

static int __init count_init(void)
{
	int i, ret;

	ret = ib_register_client(&count_client);
	if (ret)
		return ret;
	for (i = 0; i < nr_devices; i++) {
		if (!counts[i].dev) {
			ib_unregister_client(&count_client);
			return -ENODEV;
		}
	}
	count_file = debugfs_create_file("wr_count", 0600, NULL, NULL,
					 &count_fops);
	return 0;
}

static void __exit count_exit(void)
{
	debugfs_remove(count_file);
	ib_unregister_client(&count_client);
}

module_init(count_init);
module_exit(count_exit);

MODULE_DESCRIPTION("Count WRs, SGEs and bytes that ULPs post");
MODULE_LICENSE("Dual BSD/GPL");
