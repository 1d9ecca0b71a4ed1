# SPDX-License-Identifier: LGPL-2.1-or-later
"""The hosts of XEN=1: Xen, a dom0 that has DRBD and tapdisk, and a PV guest that is the member of the cluster."""
import shlex


def machine(out, slow):
    """As tests/xen/run, which says why the processor is this one."""
    return lambda name: slow + [
        "-accel", "tcg,tb-size=512", "-cpu", "max,-smap,-smep,-rdtscp", "-m", "1600", "-kernel", out + "/xen", "-append",
        "com1=115200,8n1 console=com1 loglvl=error guest_loglvl=none dom0_mem=1000M,max:1000M dom0_max_vcpus=1 spec-ctrl=no,eager-fpu xpti=0",
        "-initrd", "%s/xen-vmlinux console=hvc0 quiet panic=-1 mitigations=off nopti random.trust_cpu=on lab-init=/lab/dom0-init "
        "node=%s,%s/xen-initramfs" % (out, name, out),
        "-drive", "if=none,id=root,format=raw,snapshot=on,file.filename=%s/dom0.img,file.locking=off" % out,
        "-device", "virtio-blk-pci,drive=root,serial=root"]


def member(command):
    return "member " + shlex.quote(command)
