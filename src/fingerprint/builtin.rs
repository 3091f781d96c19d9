//! The rule files that are compiled into the program: all of `rules/`, listed by `build.rs`.

/// (file name, content), in the order of the names.
pub(super) const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/rules.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_file_is_in_the_list() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
        let mut present: Vec<_> = std::fs::read_dir(directory)
            .expect("the directory of the rules")
            .map(|entry| {
                entry
                    .expect("a readable entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .filter(|name| name.ends_with(".toml"))
            .map(|name| format!("rules/{name}"))
            .collect();
        present.sort();
        let listed: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(listed, present);
    }
}
