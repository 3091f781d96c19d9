//! The shape of the code, held against `docs/architecture.md`: who may import whom, where `unsafe`
//! may stand, and that every file says what it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The import table of `docs/architecture.md`, row by row.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string("docs/architecture.md").unwrap();
    let mut table = BTreeMap::<String, BTreeSet<String>>::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, modules, _, imports, _] = cells.as_slice() else {
            continue;
        };
        let names = |cell: &str| -> BTreeSet<String> {
            cell.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        };
        let mut may = names(imports);
        if imports.contains("all above") {
            may.extend(table.keys().cloned());
        }
        let rows = names(modules);
        for module in &rows {
            let mut may = may.clone();
            may.extend(rows.iter().cloned());
            table.insert(module.clone(), may);
        }
    }
    table
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The top-level module a file under `src/` belongs to.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix("src").unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Whether a file holds nothing but tests.
fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    name == "tests"
        || name.ends_with("_tests")
        || path.components().any(|c| c.as_os_str() == "tests")
}

/// The code of a file without its tests, which may look around more freely, and without comments.
fn code(path: &Path) -> String {
    if is_test(path) {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    let text = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default()
        .to_owned();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Top-level modules that a piece of code names by `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    code.split("crate::")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect::<String>()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn every_import_is_in_the_table() {
    let table = allowed();
    assert!(
        table.len() >= 12,
        "the table in docs/architecture.md was not read: {table:?}"
    );
    let mut wrong = Vec::new();
    for path in sources(Path::new("src")) {
        let module = module_of(&path);
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(may) = table.get(&module) else {
            wrong.push(format!(
                "{}: `{module}` has no row in the table",
                path.display()
            ));
            continue;
        };
        for import in imports(&code(&path)) {
            if import != module && !may.contains(&import) {
                wrong.push(format!(
                    "{}: `{module}` may not import `{import}`",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_only_under_net_sys_and_is_argued() {
    for path in sources(Path::new("src")) {
        let code = code(&path);
        let unsafe_code = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
        if unsafe_code.iter().any(|form| code.contains(form)) {
            assert!(
                path.starts_with("src/net/sys"),
                "unsafe in {}",
                path.display()
            );
        }
        if code.contains("allow(unsafe_code") || code.contains("expect(unsafe_code") {
            assert!(
                path.starts_with("src/net/sys"),
                "unsafe allowed in {}",
                path.display()
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for directory in ["src", "tests", "benches", "examples"] {
        for path in sources(Path::new(directory)) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                text.starts_with("//!"),
                "{} has no head-doc",
                path.display()
            );
        }
    }
}

/// The modules that are pure take bytes, instants and seeds: they open nothing and ask nobody.
#[test]
fn the_core_reads_no_clock_and_opens_no_socket() {
    let forbidden = [
        "Instant::now",
        "SystemTime::now",
        "TcpStream",
        "UdpSocket",
        "/dev/urandom",
    ];
    for path in sources(Path::new("src")) {
        let pure = ["targets", "rate", "wire", "probe", "smtp", "report"];
        if pure.contains(&module_of(&path).as_str()) {
            let code = code(&path);
            for word in forbidden {
                assert!(!code.contains(word), "{word} in {}", path.display());
            }
        }
    }
}
