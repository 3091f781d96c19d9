//! Lists the rule files for `src/fingerprint/builtin.rs`, so that a new one needs no line of code.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    let rules = Path::new(&root).join("rules");
    let mut names: Vec<_> = fs::read_dir(&rules)
        .expect("the directory of the rules")
        .map(|entry| entry.expect("a readable entry").file_name())
        .map(|name| name.into_string().expect("a file name in UTF-8"))
        .filter(|name| name.ends_with(".toml"))
        .collect();
    names.sort();
    let mut list = String::from("&[\n");
    for name in &names {
        let path = rules.join(name);
        writeln!(
            list,
            "    ({:?}, include_str!({path:?})),",
            format!("rules/{name}")
        )
        .expect("writing to a string");
    }
    list += "]\n";
    let out = env::var("OUT_DIR").expect("set by cargo");
    fs::write(Path::new(&out).join("rules.rs"), list).expect("the build directory is writable");
    // A directory stands for its entries: a file added or taken away runs this again.
    println!("cargo::rerun-if-changed=rules");
}
