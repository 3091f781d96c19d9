/* answer.bpf.c: the far end of scripts/bench-peers, as an XDP program on its interface.
 *
 * A SYN for an address of which the last 16 bits are below SHARE becomes a SYN-ACK and goes back
 * whence it came; every other frame is dropped (SHARE 0: all of them). Of 65,536 shares, SHARE is
 * thus the number that answers: 655 is 1.00 %. ARP passes, should anyone ask.
 *
 * It stands in for hosts, at a tenth of what the kernel's own TCP would cost for an answer, so that
 * on a small machine the tools under test are the bottleneck and not the measuring.
 *
 * Self-contained on purpose: no header of the kernel's is needed, only gcc-bpf (or clang).
 */
#ifndef SHARE
#define SHARE 65536
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

/* The part of the kernel's struct xdp_md (its stable interface) that is read here. */
struct xdp_md {
    u32 data, data_end, data_meta;
    u32 ingress_ifindex, rx_queue_index, egress_ifindex;
};

enum { XDP_DROP = 1, XDP_PASS = 2 };

/* Back out of the interface it came in by. XDP_TX would do the same, were it not that veth then
 * wakes the receiver at the other end only if that has an XDP program too. */
static long (*const redirect)(u32 ifindex, unsigned long long flags) = (void *)23;

/* Ethernet, IPv4 without options and TCP, as 16-bit words of the frame: all on even offsets, and
 * 32-bit fields would not be aligned behind 14 octets of Ethernet. */
struct frame {
    u16 to[3], from[3], type;
    u16 ip_head[4];
    u8 ttl, protocol;
    u16 ip_sum, saddr[2], daddr[2];
    u16 sport, dport, seq[2], ack[2];
    u8 offset, flags;
    u16 window, sum, urgent;
};

#define SWAP(a, b)     \
    do {               \
        u16 t_ = (a);  \
        (a) = (b);     \
        (b) = t_;      \
    } while (0)
#define SWAP16(x) ((u16)((u16)(x) << 8 | (u16)(x) >> 8))

__attribute__((section("xdp"), used)) int answer(struct xdp_md *context)
{
    struct frame *f = (void *)(long)context->data;
    u32 sum, seq;

    if ((void *)(f + 1) > (void *)(long)context->data_end)
        return (void *)(&f->type + 1) <= (void *)(long)context->data_end &&
                       f->type == SWAP16(0x0806)
                   ? XDP_PASS
                   : XDP_DROP;
    if (f->type == SWAP16(0x0806))
        return XDP_PASS;
    if (f->type != SWAP16(0x0800) || (f->ip_head[0] & 0xff) != 0x45 || f->protocol != 6 ||
        f->flags != 0x02)
        return XDP_DROP;
    if (SWAP16(f->daddr[1]) >= SHARE)
        return XDP_DROP;

    SWAP(f->to[0], f->from[0]);
    SWAP(f->to[1], f->from[1]);
    SWAP(f->to[2], f->from[2]);
    /* Swaps leave the sums as they are. */
    SWAP(f->saddr[0], f->daddr[0]);
    SWAP(f->saddr[1], f->daddr[1]);
    SWAP(f->sport, f->dport);

    /* RFC 1624: the sum's complement, less the words that go, plus those that come. */
    sum = (u16)~f->sum;
    sum += (u16)~f->ack[0];
    sum += (u16)~f->ack[1];
    seq = ((u32)SWAP16(f->seq[0]) << 16 | SWAP16(f->seq[1])) + 1;
    f->ack[0] = SWAP16(seq >> 16);
    f->ack[1] = SWAP16(seq);
    sum += f->ack[0];
    sum += f->ack[1];
    f->flags = 0x12;
    sum += SWAP16(0x0010);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    f->sum = (u16)~sum;
    return redirect(context->ingress_ifindex, 0);
}

__attribute__((section("license"), used)) char licence_text[] = "Apache-2.0";
