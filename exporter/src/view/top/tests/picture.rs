//! The picture of README: a screen as SVG. `FLOWTEL_WRITE=1 cargo test -p flowtel --lib -- picture` writes it anew.

use std::{env, fmt::Write as _, fs, path::Path};

use ratatui::buffer::{Buffer, Cell};

use super::*;

/// Pixels of a character.
const WIDTH: f64 = 8.4;
const HEIGHT: u16 = 18;

fn colour(cell: &Cell) -> (&'static str, Option<&'static str>) {
    let own = match cell.fg {
        Color::Red => "#ff7b72",
        Color::Green => "#7ee787",
        Color::Magenta => "#d2a8ff",
        Color::Cyan => "#79c0ff",
        _ if cell.modifier.contains(Modifier::DIM) => "#8b949e",
        _ => "#e6edf3",
    };
    if cell.modifier.contains(Modifier::REVERSED) { ("#0d1117", Some(own)) } else { (own, None) }
}

fn svg(buffer: &Buffer) -> String {
    let (columns, rows) = (buffer.area.width, buffer.area.height);
    let (width, height) = (f64::from(columns) * WIDTH + 20.0, rows * HEIGHT + 20);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height}\" role=\"img\" aria-label=\"flowtel top\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#0d1117\"/>\n\
         <g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"14\" \
         xml:space=\"preserve\">\n"
    );
    for y in 0..rows {
        let line: Vec<&Cell> = (0..columns).filter_map(|x| buffer.cell((x, y))).collect();
        let same = |a: &&Cell, b: &&Cell| colour(a) == colour(b) && a.modifier == b.modifier;
        let mut x = 0.0;
        for run in line.chunk_by(same) {
            let text: String = run.iter().map(|cell| cell.symbol()).collect();
            let wide = run.len() as f64 * WIDTH;
            let ((ink, ground), left, top) = (colour(run[0]), x + 10.0, y * HEIGHT + 10);
            if let Some(ground) = ground {
                let _ = writeln!(
                    out,
                    "<rect x=\"{left:.1}\" y=\"{top}\" width=\"{wide:.1}\" height=\"{HEIGHT}\" fill=\"{ground}\"/>"
                );
            }
            if !text.trim().is_empty() {
                let bold = if run[0].modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                let base = top + 14;
                let _ = writeln!(
                    out,
                    "<text x=\"{left:.1}\" y=\"{base}\" fill=\"{ink}\"{bold} textLength=\"{wide:.1}\">{text}</text>"
                );
            }
            x += wide;
        }
    }
    out + "</g>\n</svg>\n"
}

#[test]
fn the_picture_of_the_docs_is_what_is_drawn() {
    let mut app = app();
    keys(&mut app, &[KeyCode::Home, KeyCode::Down]);
    let picture = svg(drawn(&mut app, 100, 30).backend().buffer());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images/top.svg");
    if env::var_os("FLOWTEL_WRITE").is_some() {
        fs::create_dir_all(file.parent().expect("a directory")).expect("it can be made");
        fs::write(&file, &picture).expect("it can be written");
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(there == picture, "docs/images/top.svg is another picture: make docs writes it anew");
}
