//! What was measured: lines come in from all scenarios, one table goes out at the end.

use std::sync::{Mutex, PoisonError};

struct Row {
    what: &'static str,
    measured: String,
    goal: &'static str,
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// Notes a figure.
pub fn note(what: &'static str, measured: String, goal: &'static str) {
    ROWS.lock().unwrap_or_else(PoisonError::into_inner).push(Row { what, measured, goal });
}

/// Prints all of them.
pub fn print() {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    if rows.is_empty() {
        return;
    }
    println!("| what | measured | goal |\n|---|---|---|");
    for Row { what, measured, goal } in &*rows {
        println!("| {what} | {measured} | {goal} |");
    }
}
