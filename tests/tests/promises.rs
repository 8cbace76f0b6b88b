//! Each promise of docs/threat-model.md names a test by file and name. That the test is there is checked here: a promise
//! whose test was renamed or removed is a broken one.

use std::{fs, path::Path};

/// A row of a table with a promise: what is promised, and in which file under which name its test is.
#[derive(Debug, PartialEq, Eq)]
struct Promise {
    says: String,
    file: String,
    test: String,
}

/// The rows of all tables whose last column is called `test`. A row that names no test is an error.
fn promises(page: &str) -> Result<Vec<Promise>, String> {
    let mut found = Vec::new();
    let mut within = false;
    for line in page.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            within = false;
            continue;
        };
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        if cells.last() == Some(&"test") {
            within = true;
            continue;
        }
        if !within || row.starts_with("---") {
            continue;
        }
        let [says, named] = cells.as_slice() else { return Err(format!("not two columns: {line}")) };
        let named = named.strip_prefix('`').and_then(|named| named.split_once("`: "));
        let Some((file, test)) = named.filter(|(_, test)| !test.is_empty()) else {
            return Err(format!("no test is named: {line}"));
        };
        found.push(Promise { says: (*says).into(), file: file.into(), test: test.into() });
    }
    Ok(found)
}

/// Whether a file of tests has a test of this name: a function, or a row of the kernel table.
fn has(source: &str, test: &str) -> bool {
    let function = ["(", "<"].iter().any(|after| source.contains(&format!("fn {test}{after}")));
    // As a string literal, also broken over lines.
    let literal = format!("\"{}\"", test.replace('"', "\\\""));
    function || source.contains(&literal)
}

#[test]
fn each_promise_of_the_threat_model_names_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/threat-model.md")).expect("the page");
    let promises = promises(&page).expect("tables with tests");
    assert!(promises.len() > 30, "only {} promises were found", promises.len());
    let missing: Vec<_> = promises
        .iter()
        .filter(|Promise { file, test, .. }| {
            fs::read_to_string(root.join(file)).map_or(true, |source| !has(&source, test))
        })
        .collect();
    assert!(missing.is_empty(), "these tests are gone: {missing:#?}");
}

#[test]
fn a_row_without_a_test_and_a_test_that_is_not_there_are_found() {
    let page = "| asset | why |\n|---|---|\n| a | b |\n\n| promise | test |\n|---|---|\n| p | `a.rs`: does_it |\n";
    let promise = Promise { says: "p".into(), file: "a.rs".into(), test: "does_it".into() };
    assert_eq!(promises(page), Ok(vec![promise]));
    assert!(promises("| promise | test |\n|---|---|\n| p | - |\n").is_err_and(|e| e.contains("no test is named")));
    assert!(promises("| promise | test |\n|---|---|\n| p | `a.rs`: |\n").is_err());
    assert!(has("async fn does_it() {}", "does_it") && !has("fn does_it_not() {}", "does_it"));
    assert!(has("Scenario::new(\"a \\\"b\\\" c\", 60, x)", "a \"b\" c") && !has("// a \"b\" c", "a \"b\" c"));
}
