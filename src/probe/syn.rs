//! The SYN: one frame prepared once, patched per target.
//!
//! All SYNs of a sweep differ in five fields: destination, IP identification, source port,
//! sequence number, and the two checksums that cover them. The template has zeros there and its
//! constant words are summed at preparation, so a [`Patch`] adds a few words and folds (RFC 1624):
//! no frame is ever summed whole, and a patch does not depend on what the frame held before.
//!
//! The TCP options follow what operating systems send, in the layouts and under the names of
//! zmap's `--probe-args`: some middleboxes drop SYNs without the customary options, which costs
//! 1.5 to 2 % of the answers.

use std::net::Ipv4Addr;
use std::str::FromStr;

use super::patch::{Patch, Patcher, Patches};
use super::{Cookies, Offer};
use crate::targets::Target;
use crate::wire::{checksum, ipv4, tcp};

/// Which system's SYN to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SynLayout {
    /// MSS only: 24 octets of TCP, the most that fits a minimal Ethernet frame.
    SmallestProbes,
    /// As macOS and its relatives: MSS, window scale 6, timestamps, SACK permitted; 44 octets.
    Bsd,
    /// As Linux: MSS, SACK permitted, timestamps, window scale 7; 40 octets.
    #[default]
    Linux,
    /// As Windows: MSS, window scale 8, SACK permitted; 32 octets.
    Windows,
}

/// A word that names no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no SYN layout (want smallest-probes, bsd, linux or windows)")]
pub struct LayoutError(pub String);

impl SynLayout {
    /// Every layout.
    pub const ALL: &'static [Self] = &[Self::SmallestProbes, Self::Bsd, Self::Linux, Self::Windows];

    /// zmap's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SmallestProbes => "smallest-probes",
            Self::Bsd => "bsd",
            Self::Linux => "linux",
            Self::Windows => "windows",
        }
    }

    /// The window such a system offers in its SYN, in octets.
    const fn window(self) -> u16 {
        match self {
            Self::Linux => 64_240,
            Self::SmallestProbes | Self::Bsd | Self::Windows => 65_535,
        }
    }

    /// The raw options, with `clock` where the layout has timestamps.
    fn options(self, clock: u32) -> Vec<u8> {
        const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];
        const SACK_PERMITTED: [u8; 2] = [4, 2];
        const NOP: [u8; 1] = [1];
        const END: [u8; 1] = [0];
        let mut timestamps = [8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        timestamps[2..6].copy_from_slice(&clock.to_be_bytes());
        let scale = |shift: u8| [3, 3, shift];
        match self {
            Self::SmallestProbes => MSS_1460.to_vec(),
            Self::Bsd => [
                &MSS_1460[..],
                &NOP,
                &scale(6),
                &NOP,
                &NOP,
                &timestamps,
                &SACK_PERMITTED,
                &END,
                &END,
            ]
            .concat(),
            Self::Linux => [&MSS_1460[..], &SACK_PERMITTED, &timestamps, &NOP, &scale(7)].concat(),
            Self::Windows => [&MSS_1460[..], &NOP, &scale(8), &NOP, &NOP, &SACK_PERMITTED].concat(),
        }
    }
}

impl FromStr for SynLayout {
    type Err = LayoutError;

    fn from_str(word: &str) -> Result<Self, LayoutError> {
        let named = Self::ALL
            .iter()
            .copied()
            .find(|layout| layout.name() == word);
        named.ok_or_else(|| LayoutError(word.to_owned()))
    }
}

/// The SYN of one sweep.
#[derive(Debug, Clone)]
pub struct Syn {
    template: Vec<u8>,
    link_len: usize,
    saddr: Ipv4Addr,
    patcher: Patcher,
}

impl Syn {
    /// The time to live that zmap sends and we do, so that even distant hosts are reached.
    pub const DEFAULT_TTL: u8 = 255;

    /// Prepares the SYN from `saddr` that follows `link_header` (14 octets of Ethernet, or none).
    ///
    /// The timestamp option, where the layout has one, is constant over the sweep and drawn from
    /// the key, so that two sweeps differ and one sweep's frames differ only where they must.
    pub fn new(
        link_header: &[u8],
        saddr: Ipv4Addr,
        ttl: u8,
        layout: SynLayout,
        cookies: Cookies,
    ) -> Self {
        let link_len = link_header.len();
        let options = layout.options(cookies.of(saddr, Ipv4Addr::UNSPECIFIED).seq);
        let segment = tcp::Repr {
            source_port: 0,
            destination_port: cookies.dport(),
            seq: 0,
            ack: 0,
            flags: tcp::Flags::SYN,
            window: layout.window(),
            options: &options,
        };
        // At most 20 + 24 octets: no layout's options exceed 24.
        let segment_len = u16::try_from(segment.header_len()).unwrap_or(u16::MAX);
        let packet = ipv4::Repr {
            source: saddr,
            destination: Ipv4Addr::UNSPECIFIED,
            protocol: ipv4::PROTOCOL_TCP,
            ttl,
            ident: 0,
            dont_fragment: true,
            payload_len: segment_len,
        };

        let mut template = link_header.to_vec();
        template.resize(link_len + ipv4::HEADER_LEN + segment.header_len(), 0);
        let (ip, transport) = template[link_len..].split_at_mut(ipv4::HEADER_LEN);
        packet.emit(&mut ipv4::Packet::new_unchecked(&mut *ip));
        segment.emit(
            &mut tcp::Packet::new_unchecked(&mut *transport),
            saddr,
            Ipv4Addr::UNSPECIFIED,
        );
        ip[ipv4::field::CHECKSUM].fill(0);
        transport[tcp::field::CHECKSUM].fill(0);
        let pseudo = checksum::pseudo_header(
            saddr,
            Ipv4Addr::UNSPECIFIED,
            ipv4::PROTOCOL_TCP,
            segment_len,
        );
        let sums = [checksum::add(0, ip), checksum::add(pseudo, transport)];
        let patcher = Patcher::new(saddr, cookies, &template[link_len..], sums);
        Self {
            template,
            link_len,
            saddr,
            patcher,
        }
    }

    /// Octets of a frame, link header included.
    pub const fn frame_len(&self) -> usize {
        self.template.len()
    }

    /// Octets of the link header: 14, or 0.
    pub const fn link_len(&self) -> usize {
        self.link_len
    }

    /// What the SYNs offer.
    pub fn offer(&self) -> Offer {
        let segment = &self.template[self.link_len + ipv4::HEADER_LEN..];
        let segment = tcp::Packet::new_unchecked(segment);
        Offer {
            window: segment.window(),
            options: tcp::Options::parse(segment.options()),
        }
    }

    /// Where the SYNs come from.
    pub const fn saddr(&self) -> Ipv4Addr {
        self.saddr
    }

    /// The cookies the SYNs carry.
    pub const fn cookies(&self) -> &Cookies {
        self.patcher.cookies()
    }

    /// Writes the template over the first [`Self::frame_len`] octets of `frame`: needed once, before
    /// any number of [`Self::stamp`]s.
    ///
    /// # Panics
    /// If `frame` is shorter.
    pub fn prepare(&self, frame: &mut [u8]) {
        frame[..self.template.len()].copy_from_slice(&self.template);
    }

    /// Makes a prepared (or already stamped) `frame` the SYN for `target`.
    ///
    /// # Panics
    /// If `frame` is shorter than [`Self::frame_len`].
    pub fn stamp(&self, frame: &mut [u8], target: Target) {
        self.patcher
            .patch(target)
            .apply(&mut frame[self.link_len..]);
    }

    /// Makes prepared (or already stamped) frames the SYNs for `targets`, in order: the same as so
    /// many [`Self::stamp`]s, in a third of the time. A frame begins every `stride` octets.
    ///
    /// # Panics
    /// If `stride` or the last frame is shorter than [`Self::frame_len`].
    pub fn stamp_batch(&self, frames: &mut [u8], stride: usize, targets: &[Target]) {
        assert!(stride >= self.template.len(), "frames must not overlap");
        let mut frames = frames.chunks_mut(stride);
        self.patch_each(targets, |_, patch| {
            let frame = frames.next().expect("as many frames as targets");
            patch.apply(&mut frame[self.link_len..]);
        });
    }

    /// Calls `each` with the patch that makes a frame the SYN for a target, for all of `targets` in
    /// order, and with the target's place among them: for frames that do not lie in a row.
    pub fn patch_each(&self, targets: &[Target], mut each: impl FnMut(usize, Patch)) {
        let mut patches = Patches::default();
        for (chunk, targets) in targets.chunks(Patches::LEN).enumerate() {
            patches.make(&self.patcher, targets);
            for at in 0..targets.len() {
                each(chunk * Patches::LEN + at, patches.get(at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::CookieKey;
    use crate::targets::{RangeSet, Space};
    use pnet_packet::Packet as _;
    use pnet_packet::ipv4::{Ipv4Packet, checksum as ip_checksum};
    use pnet_packet::tcp::{TcpPacket, ipv4_checksum};

    const US: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
    const LINK: [u8; 14] = [2, 0, 0x5e, 0x10, 0, 1, 2, 0, 0x5e, 0x10, 0, 2, 8, 0];

    fn syn(link: &[u8], layout: SynLayout) -> Syn {
        let key = CookieKey::derive(7, &[7; 16]);
        Syn::new(
            link,
            US,
            Syn::DEFAULT_TTL,
            layout,
            Cookies::new(key, 40_000..=49_999, 25),
        )
    }

    fn space(first: u32, last: u32) -> Space {
        let nothing = RangeSet::from_ranges(std::iter::empty::<(u32, u32)>());
        Space::new(&RangeSet::from_ranges([(first, last)]), &nothing)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn stamped(syn: &Syn, target: Target) -> Vec<u8> {
        let mut frame = vec![0xa5; syn.frame_len()];
        syn.prepare(&mut frame);
        syn.stamp(&mut frame, target);
        frame
    }

    #[test]
    fn golden_bytes_of_each_layout() {
        // Computed apart from this code: SHA-256, SipHash-1-3 and both checksums in Python.
        let target = space(0x0a01_0203, 0x0a01_0203).target(0).unwrap();
        let golden = [
            (
                SynLayout::SmallestProbes,
                concat!(
                    "02005e10000102005e1000020800",
                    "4500002c51fd4000ff0657b6c61200020a010203",
                    "b03e0019c36d0b2d000000006002ffff471c0000020405b4"
                ),
            ),
            (
                SynLayout::Bsd,
                concat!(
                    "02005e10000102005e1000020800",
                    "4500004051fd4000ff0657a2c61200020a010203",
                    "b03e0019c36d0b2d00000000b002ffff44880000020405b4010303060101080a508450e50000000004020000"
                ),
            ),
            (
                SynLayout::Linux,
                concat!(
                    "02005e10000102005e1000020800",
                    "4500003c51fd4000ff0657a6c61200020a010203",
                    "b03e0019c36d0b2d00000000a002faf05a9b0000020405b40402080a508450e50000000001030307"
                ),
            ),
            (
                SynLayout::Windows,
                concat!(
                    "02005e10000102005e1000020800",
                    "4500003451fd4000ff0657aec61200020a010203",
                    "b03e0019c36d0b2d000000008002ffff1e060000020405b40103030801010402"
                ),
            ),
        ];
        for (layout, want) in golden {
            assert_eq!(
                hex(&stamped(&syn(&LINK, layout), target)),
                want,
                "{layout:?}"
            );
        }
    }

    #[test]
    fn frame_lengths_are_those_of_zmap() {
        let lens: Vec<usize> = SynLayout::ALL
            .iter()
            .map(|layout| syn(&LINK, *layout).frame_len())
            .collect();
        assert_eq!(lens, [58, 78, 74, 66]);
        assert_eq!(syn(&[], SynLayout::Linux).frame_len(), 60);
    }

    #[test]
    fn a_thousand_targets_as_pnet_sees_them() {
        let space = space(0, u32::MAX);
        for (link, layout) in [&LINK[..], &[]]
            .iter()
            .zip(SynLayout::ALL.iter().cycle())
            .cycle()
            .take(8)
        {
            let syn = syn(link, *layout);
            let mut frame = vec![0xa5; syn.frame_len()];
            syn.prepare(&mut frame);
            for i in 0..1000u64 {
                // Targets spread over the whole space, both ends among them.
                let target = space.target(i * (u64::from(u32::MAX) / 999)).unwrap();
                syn.stamp(&mut frame, target);
                let ip = Ipv4Packet::new(&frame[syn.link_len()..]).unwrap();
                assert_eq!(ip.get_checksum(), ip_checksum(&ip));
                assert_eq!((ip.get_source(), ip.get_destination()), (US, target.addr()));
                assert_eq!(
                    (ip.get_ttl(), ip.get_flags(), ip.get_fragment_offset()),
                    (255, 2, 0)
                );
                assert_eq!(
                    usize::from(ip.get_total_length()),
                    frame.len() - syn.link_len()
                );
                let tcp = TcpPacket::new(ip.payload()).unwrap();
                assert_eq!(tcp.get_checksum(), ipv4_checksum(&tcp, &US, &target.addr()));
                let cookie = syn.cookies().of(US, target.addr());
                assert_eq!(ip.get_identification(), cookie.ip_id);
                assert_eq!(
                    (tcp.get_source(), tcp.get_sequence()),
                    (cookie.sport, cookie.seq)
                );
                assert_eq!((tcp.get_destination(), tcp.get_flags()), (25, 2));
                assert_eq!(tcp.get_acknowledgement(), 0);
                assert!((40_000..=49_999).contains(&tcp.get_source()));
            }
            assert_eq!(frame[..syn.link_len()], **link);
        }
    }

    #[test]
    fn a_patch_forgets_the_one_before() {
        let space = space(0x0a00_0000, 0x0a00_00ff);
        let syn = syn(&LINK, SynLayout::Linux);
        let mut reused = vec![0; syn.frame_len()];
        syn.prepare(&mut reused);
        for i in 0..256 {
            let target = space.target(i).unwrap();
            syn.stamp(&mut reused, target);
            assert_eq!(reused, stamped(&syn, target));
        }
    }

    #[test]
    fn a_batch_is_as_one_by_one() {
        let space = space(0x0a00_0000, 0x0a00_00ff);
        let targets: Vec<Target> = (0..256).map(|i| space.target(i).unwrap()).collect();
        for (link, layout) in [&LINK[..], &[]].iter().zip(SynLayout::ALL.iter().rev()) {
            let syn = syn(link, *layout);
            for (count, gap) in (0..70).chain([256]).zip([0, 1, 54].into_iter().cycle()) {
                let stride = syn.frame_len() + gap;
                let mut frames = vec![0xa5; stride * (count + 1)];
                for frame in frames.chunks_mut(stride) {
                    syn.prepare(frame);
                }
                let untouched = frames[..stride].to_vec();
                syn.stamp_batch(&mut frames, stride, &targets[..count]);
                for (frame, target) in frames.chunks(stride).zip(&targets[..count]) {
                    assert_eq!(frame[..syn.frame_len()], stamped(&syn, *target));
                    assert!(frame[syn.frame_len()..].iter().all(|octet| *octet == 0xa5));
                }
                assert_eq!(frames[stride * count..], untouched);
            }
        }
    }

    #[test]
    #[should_panic(expected = "as many frames as targets")]
    fn too_few_frames_are_a_mistake() {
        let syn = syn(&LINK, SynLayout::Linux);
        let targets = [space(9, 9).target(0).unwrap(); 2];
        let mut frames = vec![0; syn.frame_len()];
        syn.stamp_batch(&mut frames, syn.frame_len(), &targets);
    }

    #[test]
    fn options_mean_what_the_systems_send() {
        for layout in SynLayout::ALL {
            let raw = layout.options(0x0102_0304);
            assert!(raw.len().is_multiple_of(4));
            let options = tcp::Options::parse(&raw);
            assert_eq!(options.mss, Some(1460));
            let scale = match layout {
                SynLayout::SmallestProbes => None,
                SynLayout::Bsd => Some(6),
                SynLayout::Linux => Some(7),
                SynLayout::Windows => Some(8),
            };
            assert_eq!(options.wscale, scale);
            assert_eq!(options.sack_perm, scale.is_some());
            let clock = matches!(layout, SynLayout::Bsd | SynLayout::Linux);
            assert_eq!(options.ts_val, clock.then_some(0x0102_0304));
        }
    }

    #[test]
    fn words_name_layouts() {
        for layout in SynLayout::ALL {
            assert_eq!(layout.name().parse(), Ok(*layout));
        }
        assert_eq!(
            "Linux".parse::<SynLayout>(),
            Err(LayoutError("Linux".to_owned()))
        );
        assert_eq!(SynLayout::default(), SynLayout::Linux);
    }
}
