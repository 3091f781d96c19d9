//! What kind of thing a product is: the coarsest level at which reports count.

use std::fmt;

/// The kind of a product. The names are those of the rule files and of the reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// Software under an open source licence that anybody may run.
    OpenSource,
    /// Software that is sold to be run by its buyer.
    Commercial,
    /// A service run by its vendor on its own addresses.
    HostedService,
    /// A device, physical or virtual, that is sold as a whole.
    Appliance,
    /// Something that stands in front of a mail server: firewall, filter, relay on a desktop.
    Proxy,
    /// Test tools, honeypots and tarpits.
    Other,
}

impl Category {
    /// Every category, in the order in which reports show them.
    pub const ALL: &'static [Self] = &[
        Self::OpenSource,
        Self::Commercial,
        Self::HostedService,
        Self::Appliance,
        Self::Proxy,
        Self::Other,
    ];

    /// The stable name, as written in rule files and stored in surveys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenSource => "open source",
            Self::Commercial => "commercial",
            Self::HostedService => "hosted service",
            Self::Appliance => "appliance",
            Self::Proxy => "proxy",
            Self::Other => "other",
        }
    }

    /// The category of that stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.name() == name)
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_category() {
        for &category in Category::ALL {
            assert_eq!(Category::from_name(category.name()), Some(category));
        }
        assert_eq!(Category::from_name("Open Source"), None);
    }
}
