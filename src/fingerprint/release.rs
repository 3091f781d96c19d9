//! Versions as servers state them, taken apart: the number, the package around it, and for products
//! that count builds the release by its name.
//!
//! The tables of builds hold what Microsoft publishes ("Exchange Server build numbers and release
//! dates", "Windows Server release information"): the build of each release, of which security
//! updates only raise the last part.

/// A version taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// The version of the software itself.
    pub(super) number: String,
    /// What a distribution added to it.
    pub(super) package: Option<String>,
}

/// Marks of distributions in the revision of a package.
const PACKAGERS: &[&str] = &["ubuntu", "deb", "bpo", ".el", ".fc", "+b", "~", "build"];

/// Takes a version apart: `8.13.6/8.13.6` is said twice (sendmail and its configuration),
/// `3.4.13-0+deb10u1` and `8.15.2/8.15.2/Debian-14~deb10u1` come in packages.
pub(super) fn split(stated: &str) -> Version {
    let (number, rest) = stated.split_once('/').unwrap_or((stated, ""));
    // The configuration's version repeats the program's, or nearly so.
    let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let package = match rest.split_once('/') {
        Some((_, package)) => package,
        None if digits(rest) => "",
        None => rest,
    };
    let (number, revision) = match number.split_once('-') {
        Some((number, revision))
            if digits(revision) && PACKAGERS.iter().any(|mark| revision.contains(mark)) =>
        {
            (number, revision)
        }
        _ => (number, ""),
    };
    let package = if package.is_empty() {
        revision
    } else {
        package
    };
    Version {
        number: number.to_owned(),
        package: (!package.is_empty()).then(|| package.to_owned()),
    }
}

/// The vendor's name for a release, for products whose versions are builds.
pub(super) fn name(product: &str, version: &str) -> Option<String> {
    let (table, prefix) = match product {
        "Microsoft Exchange Server" => (EXCHANGE, "Exchange Server "),
        "Microsoft IIS SMTP" => (WINDOWS, "Windows "),
        _ => return None,
    };
    let mut parts = version.split('.').map(|part| part.parse::<u16>().ok());
    let wanted = (parts.next()??, parts.next()??, parts.next()??);
    // The last release that is not newer, of the same line.
    let (_, release) = table.iter().rev().find(|((major, minor, build), _)| {
        (*major, *minor) == (wanted.0, wanted.1) && *build <= wanted.2
    })?;
    Some(format!("{prefix}{release}"))
}

/// Builds in ascending order.
type Builds = &'static [((u16, u16, u16), &'static str)];

const EXCHANGE: Builds = &[
    ((4, 0, 837), "4.0"),
    ((5, 0, 1457), "5.0"),
    ((5, 5, 1960), "5.5"),
    ((5, 5, 2448), "5.5 SP3"),
    ((5, 5, 2650), "5.5 SP4"),
    ((6, 0, 4417), "2000"),
    ((6, 0, 4712), "2000 SP1"),
    ((6, 0, 5762), "2000 SP2"),
    ((6, 0, 6249), "2000 SP3"),
    ((6, 5, 6944), "2003"),
    ((6, 5, 7226), "2003 SP1"),
    ((6, 5, 7638), "2003 SP2"),
    ((8, 0, 685), "2007"),
    ((8, 1, 240), "2007 SP1"),
    ((8, 2, 176), "2007 SP2"),
    ((8, 3, 83), "2007 SP3"),
    ((14, 0, 639), "2010"),
    ((14, 1, 218), "2010 SP1"),
    ((14, 2, 247), "2010 SP2"),
    ((14, 3, 123), "2010 SP3"),
    ((15, 0, 516), "2013"),
    ((15, 0, 620), "2013 CU1"),
    ((15, 0, 712), "2013 CU2"),
    ((15, 0, 775), "2013 CU3"),
    ((15, 0, 847), "2013 SP1"),
    ((15, 0, 913), "2013 CU5"),
    ((15, 0, 995), "2013 CU6"),
    ((15, 0, 1044), "2013 CU7"),
    ((15, 0, 1076), "2013 CU8"),
    ((15, 0, 1104), "2013 CU9"),
    ((15, 0, 1130), "2013 CU10"),
    ((15, 0, 1156), "2013 CU11"),
    ((15, 0, 1178), "2013 CU12"),
    ((15, 0, 1210), "2013 CU13"),
    ((15, 0, 1236), "2013 CU14"),
    ((15, 0, 1263), "2013 CU15"),
    ((15, 0, 1293), "2013 CU16"),
    ((15, 0, 1320), "2013 CU17"),
    ((15, 0, 1347), "2013 CU18"),
    ((15, 0, 1365), "2013 CU19"),
    ((15, 0, 1367), "2013 CU20"),
    ((15, 0, 1395), "2013 CU21"),
    ((15, 0, 1473), "2013 CU22"),
    ((15, 0, 1497), "2013 CU23"),
    ((15, 1, 225), "2016"),
    ((15, 1, 396), "2016 CU1"),
    ((15, 1, 466), "2016 CU2"),
    ((15, 1, 544), "2016 CU3"),
    ((15, 1, 669), "2016 CU4"),
    ((15, 1, 845), "2016 CU5"),
    ((15, 1, 1034), "2016 CU6"),
    ((15, 1, 1261), "2016 CU7"),
    ((15, 1, 1415), "2016 CU8"),
    ((15, 1, 1466), "2016 CU9"),
    ((15, 1, 1531), "2016 CU10"),
    ((15, 1, 1591), "2016 CU11"),
    ((15, 1, 1713), "2016 CU12"),
    ((15, 1, 1779), "2016 CU13"),
    ((15, 1, 1847), "2016 CU14"),
    ((15, 1, 1913), "2016 CU15"),
    ((15, 1, 1979), "2016 CU16"),
    ((15, 1, 2044), "2016 CU17"),
    ((15, 1, 2106), "2016 CU18"),
    ((15, 1, 2176), "2016 CU19"),
    ((15, 1, 2242), "2016 CU20"),
    ((15, 1, 2308), "2016 CU21"),
    ((15, 1, 2375), "2016 CU22"),
    ((15, 1, 2507), "2016 CU23"),
    ((15, 2, 221), "2019"),
    ((15, 2, 330), "2019 CU1"),
    ((15, 2, 397), "2019 CU2"),
    ((15, 2, 464), "2019 CU3"),
    ((15, 2, 529), "2019 CU4"),
    ((15, 2, 595), "2019 CU5"),
    ((15, 2, 659), "2019 CU6"),
    ((15, 2, 721), "2019 CU7"),
    ((15, 2, 792), "2019 CU8"),
    ((15, 2, 858), "2019 CU9"),
    ((15, 2, 922), "2019 CU10"),
    ((15, 2, 986), "2019 CU11"),
    ((15, 2, 1118), "2019 CU12"),
    ((15, 2, 1258), "2019 CU13"),
    ((15, 2, 1544), "2019 CU14"),
    ((15, 2, 1748), "2019 CU15"),
    ((15, 2, 2562), "Subscription Edition"),
];

const WINDOWS: Builds = &[
    ((5, 0, 2195), "2000"),
    ((6, 0, 2600), "XP"),
    ((6, 0, 3790), "Server 2003"),
    ((7, 0, 6001), "Server 2008"),
    ((7, 5, 7600), "Server 2008 R2"),
    ((8, 0, 9200), "Server 2012"),
    ((8, 5, 9600), "Server 2012 R2"),
    ((10, 0, 14393), "Server 2016"),
    ((10, 0, 17763), "Server 2019"),
    ((10, 0, 20348), "Server 2022"),
    ((10, 0, 26100), "Server 2025"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_apart() {
        for (stated, number, package) in [
            ("4.98.2", "4.98.2", None),
            ("8.13.6/8.13.6", "8.13.6", None),
            ("8.12.11.20060308/8.12.11", "8.12.11.20060308", None),
            (
                "8.17.1.9/8.17.1.9/Debian-2+deb12u2",
                "8.17.1.9",
                Some("Debian-2+deb12u2"),
            ),
            ("3.4.13-0+deb10u1", "3.4.13", Some("0+deb10u1")),
            ("2.9.6-1~bpo9", "2.9.6", Some("1~bpo9")),
            ("3.3.0-1ubuntu0.4", "3.3.0", Some("1ubuntu0.4")),
            ("2.8-20100306", "2.8-20100306", None),
            ("3.2.1-beta", "3.2.1-beta", None),
            ("4.90_RC3", "4.90_RC3", None),
            ("", "", None),
        ] {
            let version = split(stated);
            assert_eq!(version.number, number, "{stated}");
            assert_eq!(version.package.as_deref(), package, "{stated}");
        }
    }

    #[test]
    fn builds_have_the_names_of_their_releases() {
        for (product, version, release) in [
            (
                "Microsoft Exchange Server",
                "15.1.2507.39",
                Some("Exchange Server 2016 CU23"),
            ),
            (
                "Microsoft Exchange Server",
                "15.2.1118.7",
                Some("Exchange Server 2019 CU12"),
            ),
            (
                "Microsoft Exchange Server",
                "5.5.2653.13",
                Some("Exchange Server 5.5 SP4"),
            ),
            ("Microsoft Exchange Server", "15.1.1", None),
            ("Microsoft Exchange Server", "99.0.1", None),
            (
                "Microsoft IIS SMTP",
                "10.0.17763.1",
                Some("Windows Server 2019"),
            ),
            (
                "Microsoft IIS SMTP",
                "6.0.3790.4675",
                Some("Windows Server 2003"),
            ),
            ("Microsoft IIS SMTP", "6.0", None),
            ("Postfix", "3.4.13", None),
        ] {
            assert_eq!(name(product, version).as_deref(), release, "{version}");
        }
    }

    #[test]
    fn tables_ascend() {
        for table in [EXCHANGE, WINDOWS] {
            assert!(table.windows(2).all(|w| w[0].0 < w[1].0));
        }
    }
}
