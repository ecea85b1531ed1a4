// SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause
/*
 * An rdmavt device without hardware: rvt0. It reaches nobody but itself, by
 * rvt_ruc_loopback(). There is no subnet manager and no MAD, so rdma_cm does not
 * work: QPs of it are connected by ib_modify_qp().
 */
#include <linux/module.h>
#include <rdma/ib_mad.h>
#include <rdma/rdma_vt.h>
#include <rdma/rdmavt_qp.h>

#define RVT_TEST_LID	1
#define RVT_TEST_GUID	cpu_to_be64(0x0200000000000001)
#define RVT_TEST_PREFIX	cpu_to_be64(0xfe80000000000000)
#define RVT_TEST_PSN	0xffffff
#define RVT_TEST_SGES	16
#define RVT_TEST_ATOMIC	16

struct rvt_test_dev {
	struct rvt_dev_info rdi;
	struct rvt_ibport port;
	u16 pkey;
};

struct rvt_test_qp {
	struct rvt_qp *qp;
	struct work_struct work;
};

static struct rvt_test_dev *rvt_test;

static const struct rvt_operation_params rvt_test_ops[RVT_OPERATION_MAX] = {
	[IB_WR_SEND] = {
		.length = sizeof(struct ib_send_wr),
		.qpt_support = BIT(IB_QPT_UC) | BIT(IB_QPT_RC),
	},
	[IB_WR_SEND_WITH_IMM] = {
		.length = sizeof(struct ib_send_wr),
		.qpt_support = BIT(IB_QPT_UC) | BIT(IB_QPT_RC),
	},
	[IB_WR_SEND_WITH_INV] = {
		.length = sizeof(struct ib_send_wr),
		.qpt_support = BIT(IB_QPT_RC),
	},
	[IB_WR_RDMA_WRITE] = {
		.length = sizeof(struct ib_rdma_wr),
		.qpt_support = BIT(IB_QPT_UC) | BIT(IB_QPT_RC),
	},
	[IB_WR_RDMA_WRITE_WITH_IMM] = {
		.length = sizeof(struct ib_rdma_wr),
		.qpt_support = BIT(IB_QPT_UC) | BIT(IB_QPT_RC),
	},
	[IB_WR_RDMA_READ] = {
		.length = sizeof(struct ib_rdma_wr),
		.qpt_support = BIT(IB_QPT_RC),
		.flags = RVT_OPERATION_ATOMIC,
	},
	[IB_WR_ATOMIC_CMP_AND_SWP] = {
		.length = sizeof(struct ib_atomic_wr),
		.qpt_support = BIT(IB_QPT_RC),
		.flags = RVT_OPERATION_ATOMIC | RVT_OPERATION_ATOMIC_SGE,
	},
	[IB_WR_ATOMIC_FETCH_AND_ADD] = {
		.length = sizeof(struct ib_atomic_wr),
		.qpt_support = BIT(IB_QPT_RC),
		.flags = RVT_OPERATION_ATOMIC | RVT_OPERATION_ATOMIC_SGE,
	},
	[IB_WR_REG_MR] = {
		.length = sizeof(struct ib_reg_wr),
		.qpt_support = BIT(IB_QPT_UC) | BIT(IB_QPT_RC),
		.flags = RVT_OPERATION_LOCAL,
	},
	[IB_WR_LOCAL_INV] = {
		.length = sizeof(struct ib_send_wr),
		.qpt_support = BIT(IB_QPT_UC) | BIT(IB_QPT_RC),
		.flags = RVT_OPERATION_LOCAL,
	},
};

static const enum ib_wc_opcode rvt_test_wc_opcode[] = {
	[IB_WR_SEND]			= IB_WC_SEND,
	[IB_WR_SEND_WITH_IMM]		= IB_WC_SEND,
	[IB_WR_SEND_WITH_INV]		= IB_WC_SEND,
	[IB_WR_RDMA_WRITE]		= IB_WC_RDMA_WRITE,
	[IB_WR_RDMA_WRITE_WITH_IMM]	= IB_WC_RDMA_WRITE,
	[IB_WR_RDMA_READ]		= IB_WC_RDMA_READ,
	[IB_WR_ATOMIC_CMP_AND_SWP]	= IB_WC_COMP_SWAP,
	[IB_WR_ATOMIC_FETCH_AND_ADD]	= IB_WC_FETCH_ADD,
	[IB_WR_REG_MR]			= IB_WC_REG_MR,
	[IB_WR_LOCAL_INV]		= IB_WC_LOCAL_INV,
};

/* Sending: at once if the caller can, or by a work item */

static void rvt_test_send_work(struct work_struct *work)
{
	struct rvt_test_qp *priv = container_of(work, struct rvt_test_qp, work);

	rvt_ruc_loopback(priv->qp);
}

static bool rvt_test_schedule_send(struct rvt_qp *qp)
{
	struct rvt_test_qp *priv = qp->priv;

	return schedule_work(&priv->work);
}

static void *rvt_test_qp_alloc(struct rvt_dev_info *rdi, struct rvt_qp *qp)
{
	struct rvt_test_qp *priv = kzalloc_obj(*priv);

	if (!priv)
		return ERR_PTR(-ENOMEM);
	priv->qp = qp;
	INIT_WORK(&priv->work, rvt_test_send_work);
	return priv;
}

static void rvt_test_qp_free(struct rvt_dev_info *rdi, struct rvt_qp *qp)
{
	kfree(qp->priv);
}

/* After the timers have been stopped, which schedule sends, too. */
static void rvt_test_quiesce_qp(struct rvt_qp *qp)
{
	struct rvt_test_qp *priv = qp->priv;

	cancel_work_sync(&priv->work);
}

static void rvt_test_qp_nop(struct rvt_qp *qp)
{
}

/* Nothing is ever lost on the way. */
static void rvt_test_restart_rc(struct rvt_qp *qp, u32 psn, int wait)
{
}

static unsigned int rvt_test_free_all_qps(struct rvt_dev_info *rdi)
{
	return 0;
}

static int rvt_test_pmtu_from_attr(struct rvt_dev_info *rdi, struct rvt_qp *qp,
				   struct ib_qp_attr *attr)
{
	return attr->path_mtu;
}

static u32 rvt_test_mtu_from_qp(struct rvt_dev_info *rdi, struct rvt_qp *qp,
				u32 pmtu)
{
	return ib_mtu_enum_to_int(pmtu);
}

static int rvt_test_path_mtu(u32 mtu)
{
	return ib_mtu_int_to_enum(mtu);
}

/* The port */

static int rvt_test_query_port(struct rvt_dev_info *rdi, u32 port_num,
			       struct ib_port_attr *props)
{
	props->state = IB_PORT_ACTIVE;
	props->phys_state = IB_PORT_PHYS_STATE_LINK_UP;
	props->lid = RVT_TEST_LID;
	props->gid_tbl_len = 1;
	props->max_mtu = IB_MTU_4096;
	props->active_mtu = IB_MTU_4096;
	props->active_width = IB_WIDTH_4X;
	props->active_speed = IB_SPEED_EDR;
	props->max_vl_num = 1;
	return 0;
}

static int rvt_test_guid(struct rvt_dev_info *rdi, struct rvt_ibport *rvp,
			 int guid_index, __be64 *guid)
{
	*guid = RVT_TEST_GUID;
	return guid_index ? -EINVAL : 0;
}

static int rvt_test_shut_down_port(struct rvt_dev_info *rdi, u32 port_num)
{
	return -EOPNOTSUPP;
}

static void rvt_test_cap_mask_chg(struct rvt_dev_info *rdi, u32 port_num)
{
}

static const struct attribute_group *rvt_test_port_groups[] = { NULL };

/* rdmavt wants one of its driver */
static int rvt_test_modify_device(struct ib_device *dev, int mask,
				  struct ib_device_modify *modify)
{
	return -EOPNOTSUPP;
}

static const struct ib_device_ops rvt_test_dev_ops = {
	.owner = THIS_MODULE,
	.driver_id = RDMA_DRIVER_UNKNOWN,
	.modify_device = rvt_test_modify_device,
	.port_groups = rvt_test_port_groups,
};

static const struct rvt_driver_provided rvt_test_driver = {
	.schedule_send = rvt_test_schedule_send,
	.schedule_send_no_lock = rvt_test_schedule_send,
	.do_send = rvt_ruc_loopback,
	.qp_priv_alloc = rvt_test_qp_alloc,
	.qp_priv_free = rvt_test_qp_free,
	.notify_qp_reset = rvt_test_qp_nop,
	.flush_qp_waiters = rvt_test_qp_nop,
	.stop_send_queue = rvt_test_qp_nop,
	.quiesce_qp = rvt_test_quiesce_qp,
	.notify_error_qp = rvt_test_qp_nop,
	.notify_restart_rc = rvt_test_restart_rc,
	.free_all_qps = rvt_test_free_all_qps,
	.get_pmtu_from_attr = rvt_test_pmtu_from_attr,
	.mtu_from_qp = rvt_test_mtu_from_qp,
	.mtu_to_path_mtu = rvt_test_path_mtu,
	.get_guid_be = rvt_test_guid,
	.query_port_state = rvt_test_query_port,
	.shut_down_port = rvt_test_shut_down_port,
	.cap_mask_chg = rvt_test_cap_mask_chg,
};

static void rvt_test_init_params(struct rvt_driver_params *params)
{
	struct ib_device_attr *props = &params->props;

	props->device_cap_flags = IB_DEVICE_MEM_MGT_EXTENSIONS;
	props->page_size_cap = PAGE_SIZE;
	props->max_mr_size = U64_MAX;
	props->max_fast_reg_page_list_len = 512;
	props->max_qp = 1024;
	props->max_qp_wr = 1024;
	props->max_send_sge = RVT_TEST_SGES;
	props->max_recv_sge = RVT_TEST_SGES;
	props->max_sge_rd = RVT_TEST_SGES;
	props->max_cq = 1024;
	props->max_cqe = 4096;
	props->max_pd = 1024;
	props->max_ah = 1024;
	props->max_srq = 1024;
	props->max_srq_wr = 1024;
	props->max_srq_sge = RVT_TEST_SGES;
	props->max_pkeys = 1;
	props->atomic_cap = IB_ATOMIC_HCA;
	props->max_qp_rd_atom = RVT_TEST_ATOMIC;
	props->max_qp_init_rd_atom = RVT_TEST_ATOMIC;

	params->lkey_table_size = 12;
	params->qp_table_size = 256;
	/* 0 and 1 are special: QP numbers are even */
	params->qpn_inc = 2;
	params->psn_mask = RVT_TEST_PSN;
	params->psn_modify_mask = RVT_TEST_PSN;
	params->max_rdma_atomic = RVT_TEST_ATOMIC;
	params->node = numa_node_id();
	params->nports = 1;
	params->npkeys = 1;
	params->core_cap_flags = RDMA_CORE_CAP_PROT_IB;
}

static int __init rvt_test_init(void)
{
	struct rvt_dev_info *rdi;
	int ret;

	rdi = rvt_alloc_device(sizeof(*rvt_test), 1);
	if (!rdi)
		return -ENOMEM;
	rvt_test = container_of(rdi, struct rvt_test_dev, rdi);

	rdi->ibdev.node_guid = RVT_TEST_GUID;
	rdi->ibdev.phys_port_cnt = 1;
	rdi->driver_f = rvt_test_driver;
	rdi->post_parms = rvt_test_ops;
	rdi->wc_opcode = rvt_test_wc_opcode;
	rvt_test_init_params(&rdi->dparms);
	ib_set_device_ops(&rdi->ibdev, &rvt_test_dev_ops);

	spin_lock_init(&rvt_test->port.lock);
	rvt_test->port.gid_prefix = RVT_TEST_PREFIX;
	rvt_test->pkey = IB_DEFAULT_PKEY_FULL;
	rvt_init_port(rdi, &rvt_test->port, 0, &rvt_test->pkey);

	ret = dev_set_name(&rdi->ibdev.dev, "rvt0");
	if (!ret)
		ret = rvt_register_device(rdi);
	if (ret)
		rvt_dealloc_device(rdi);
	return ret;
}
module_init(rvt_test_init);

static void __exit rvt_test_exit(void)
{
	rvt_unregister_device(&rvt_test->rdi);
	rvt_dealloc_device(&rvt_test->rdi);
}
module_exit(rvt_test_exit);

MODULE_DESCRIPTION("rdmavt device without hardware, for tests");
MODULE_LICENSE("Dual BSD/GPL");
