//! Screens, as a terminal would show them.

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};

use super::*;
use crate::{
    telemetry::{
        metrics::tests::instance,
        status::{
            Status,
            frame::{Hello, Recording},
        },
    },
    view::sample::{self, START, Sample, api, bytes, curl, double, int, new_bytes, postgres, string},
};

mod picture;

const SECOND: u64 = 1_000_000_000;

fn hello(update_seconds: Option<f64>) -> Frame {
    let recording = Recording { update_seconds, ..Recording::default() };
    Frame::Hello(Box::new(Hello { version: "0.1.0".into(), pid: 812, recording, open_flows: 3 }))
}

fn status(ring_full: u64) -> Frame {
    let mut status = Status::of(&instance());
    for account in &mut status.kernel_events {
        account.parts.iter_mut().for_each(|part| part.count = 0);
    }
    status.lost = ring_full;
    status.records.total = 2412;
    for part in &mut status.records.parts {
        part.count = match part.name.as_str() {
            "delivered" => 2400,
            "waiting" => 12,
            _ => 0,
        };
    }
    Frame::Status(Box::new(status))
}

fn records(records: Vec<opentelemetry_proto::tonic::logs::v1::LogRecord>) -> Frame {
    Frame::Records { missed: 0, records: 1, request: sample::of(records) }
}

fn empty(colour: bool) -> App {
    App::new(Chosen::all(), "attached to flowtel 0.1.0, process 812".into(), Time::Wall, colour)
}

/// Eight seconds of a host.
fn app() -> App {
    let mut app = empty(true);
    app.on(hello(Some(1.0)));
    app.on(status(0));
    app.on(records(sample::records()));
    let browser = Sample {
        id: 7,
        source: ("10.0.0.5", 51_000),
        destination: ("198.51.100.7", 443),
        process: ("firefox", 2001),
        more: vec![
            sample::names("flowtel.destination.dns.names", "video.example.net"),
            int("process.real_user.id", 1000),
        ],
        ..curl()
    };
    app.on(records(vec![browser.record("begin", 2000, vec![double("flowtel.tcp.handshake.duration", 0.031)])]));
    for second in 3..=7 {
        let n = i64::try_from(second).unwrap_or(0);
        let update = |new: i64| [bytes(n * 900, n * new), new_bytes(900, new)].concat();
        app.on(records(vec![
            browser.record("update", second * 1000, update(1_250_000)),
            postgres().record(
                "update",
                second * 1000 + 100,
                [bytes(2_000_000 + n * 400, 9_000), new_bytes(400, 0)].concat(),
            ),
        ]));
    }
    let late = Sample {
        id: 8,
        source: ("10.0.0.5", 51_002),
        destination: ("192.0.2.44", 5671),
        process: ("worker", 3111),
        more: vec![],
        ..api()
    };
    app.on(records(vec![
        late.record("failed", 6500, vec![string("error.type", "timed_out")]),
        Sample { id: 9, ..late }.record("begin", 7600, vec![double("flowtel.tcp.handshake.duration", 0.0007)]),
    ]));
    app.tick(START + 8 * SECOND);
    app
}

fn drawn(app: &mut App, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it has no errors");
    terminal.draw(|frame| screen::draw(frame, app)).expect("it has no errors");
    terminal
}

fn shown(app: &mut App, width: u16, height: u16) -> String {
    drawn(app, width, height).backend().to_string()
}

fn keys(app: &mut App, codes: &[KeyCode]) {
    for code in codes {
        assert_eq!(app.key(KeyEvent::new(*code, KeyModifiers::NONE)), Go::On);
    }
}

fn typed(app: &mut App, text: &str) {
    let codes: Vec<_> = text.chars().map(KeyCode::Char).collect();
    keys(app, &codes);
}

#[test]
fn open_flows_at_80_by_24() {
    insta::assert_snapshot!(shown(&mut app(), 80, 24));
}

#[test]
fn open_flows_with_more_room() {
    insta::assert_snapshot!(shown(&mut app(), 160, 34));
}

#[test]
fn groups_by_process_destination_and_container() {
    let mut app = app();
    let tabs: Vec<_> = ['2', '3', '4']
        .map(|tab| {
            typed(&mut app, &tab.to_string());
            shown(&mut app, 80, 16)
        })
        .into();
    insta::assert_snapshot!(tabs.join("\n"));
}

#[test]
fn details_of_a_flow_with_its_history() {
    let mut app = app();
    keys(&mut app, &[KeyCode::Home, KeyCode::Enter]);
    insta::assert_snapshot!(shown(&mut app, 80, 24));
    keys(&mut app, &[KeyCode::Esc]);
    assert!(shown(&mut app, 80, 24).contains("DESTINATION"));
}

#[test]
fn the_help_and_a_filter_that_is_wrong() {
    let mut app = app();
    typed(&mut app, "?");
    let help = shown(&mut app, 80, 24);
    typed(&mut app, "?/prt=443");
    keys(&mut app, &[KeyCode::Enter]);
    insta::assert_snapshot!(format!("{help}\n{}", shown(&mut app, 80, 24)));
}

#[test]
fn nothing_so_far_and_what_is_missing() {
    let mut app = empty(true);
    app.on(hello(None));
    let before = shown(&mut app, 80, 12);
    app.on(status(7));
    app.on(Frame::Records { missed: 120, records: 1, request: sample::of(vec![sample::gap(0)]) });
    app.over = Some("flowtel has stopped".into());
    app.tick(START + SECOND);
    insta::assert_snapshot!(format!("{before}\n{}", shown(&mut app, 80, 12)));
}

#[test]
fn a_filter_chooses_flows_and_sums_and_an_empty_one_shows_all_again() {
    let mut app = app();
    typed(&mut app, "/process=postgres");
    keys(&mut app, &[KeyCode::Enter]);
    let text = shown(&mut app, 80, 24);
    assert!(text.contains("postgres[812]") && !text.contains("firefox") && text.contains("open 1 "), "{text}");
    typed(&mut app, "/");
    keys(&mut app, &[KeyCode::Backspace; 20]);
    keys(&mut app, &[KeyCode::Enter]);
    assert!(shown(&mut app, 80, 24).contains("firefox"));
}

#[test]
fn a_frozen_screen_stands_still_and_misses_nothing() {
    let mut app = app();
    typed(&mut app, " ");
    let before = shown(&mut app, 80, 24);
    assert!(before.contains("FROZEN"));
    let next = Sample { id: 20, process: ("late", 77), ..curl() };
    app.on(records(vec![next.record("begin", 8100, vec![])]));
    app.tick(START + 9 * SECOND);
    assert_eq!(shown(&mut app, 80, 24), before);
    // What there is no room for is counted.
    let much = Frame::Records { missed: 0, records: 5, request: vec![0; MOST_HELD].into() };
    app.on(much);
    typed(&mut app, " ");
    app.tick(START + 9 * SECOND);
    let after = shown(&mut app, 80, 24);
    assert!(after.contains("late[77]") && after.contains("missed 5 records") && !after.contains("FROZEN"), "{after}");
}

#[test]
fn the_selected_row_stays_selected_however_the_order_changes() {
    let mut app = app();
    keys(&mut app, &[KeyCode::End]);
    let selected = app.selected.clone();
    typed(&mut app, "ssr");
    shown(&mut app, 80, 24);
    assert_eq!(app.selected, selected);
    for code in [KeyCode::PageUp, KeyCode::PageDown, KeyCode::Up, KeyCode::Down, KeyCode::Home] {
        keys(&mut app, &[code]);
        shown(&mut app, 80, 24);
    }
    assert_eq!(app.selected, app.rows().first().cloned());
}

#[test]
fn a_group_opens_into_its_flows_and_goes_back() {
    let mut app = app();
    typed(&mut app, "2snr");
    typed(&mut app, "/process=curl");
    keys(&mut app, &[KeyCode::Enter, KeyCode::Home, KeyCode::Enter]);
    let text = shown(&mut app, 120, 24);
    assert!(text.contains("process curl") && text.contains("curl[1234]") && !text.contains("firefox"), "{text}");
    keys(&mut app, &[KeyCode::Esc]);
    assert_eq!(app.tab, Tab::Groups(model::groups::Kind::Process));
}

#[test]
fn every_size_can_be_drawn_and_no_line_is_lost_to_another() {
    let mut app = app();
    for (width, height) in [(1, 1), (39, 10), (40, 10), (60, 11), (80, 24), (81, 29), (200, 60), (500, 12)] {
        for tab in ["1", "2", "3", "4", "?", "?1"] {
            typed(&mut app, tab);
            let text = shown(&mut app, width, height);
            assert_eq!(text.lines().count(), usize::from(height), "{width} x {height}");
        }
        keys(&mut app, &[KeyCode::Home, KeyCode::Enter]);
        shown(&mut app, width, height);
        keys(&mut app, &[KeyCode::Esc]);
    }
}

fn cells(app: &mut App) -> Buffer {
    drawn(app, 120, 34).backend().buffer().clone()
}

#[test]
fn without_colour_there_is_none_and_the_text_is_the_same() {
    let (mut coloured, mut plain) = (app(), app());
    plain.colour = false;
    let (coloured, plain) = (cells(&mut coloured), cells(&mut plain));
    let text = |buffer: &Buffer| buffer.content.iter().map(|cell| cell.symbol().to_owned()).collect::<String>();
    assert_eq!(text(&coloured), text(&plain));
    assert!(coloured.content.iter().any(|cell| cell.fg == Color::Red));
    assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert!(plain.content.iter().any(|cell| cell.modifier.contains(Modifier::BOLD)), "failures stand out all the same");
}

#[test]
fn no_name_can_act_on_the_terminal() {
    let hostile = "\u{1b}]0;owned\u{7}\u{9b}2J\n\u{202e}";
    let mut app = empty(true);
    let flow = Sample { more: vec![sample::names("flowtel.destination.dns.names", hostile)], ..curl() };
    let mut record = flow.record("failed", 0, vec![string("error.type", hostile), string("container.id", hostile)]);
    for key in ["process.executable.name", "process.executable.path", "thread.name"] {
        record.attributes.push(string(key, hostile));
    }
    let mut gap = sample::gap(0);
    gap.body = record.attributes.last().and_then(|attribute| attribute.value.clone());
    app.on(records(vec![record, gap]));
    app.on(hello(None));
    app.tick(START + SECOND);
    typed(&mut app, "e/\u{1b}\u{9b}\u{202e}");
    keys(&mut app, &[KeyCode::Esc]);
    for keys_of in ["1", "2", "3", "4", "1"] {
        typed(&mut app, keys_of);
        let text = shown(&mut app, 200, 24);
        assert!(!text.chars().any(|c| c != '\n' && crate::escape::acts(c)), "{text}");
    }
    keys(&mut app, &[KeyCode::Home, KeyCode::Enter]);
    let text = shown(&mut app, 200, 24);
    assert!(text.contains(r"\x1b]0;owned") && !text.chars().any(|c| c != '\n' && crate::escape::acts(c)), "{text}");
}
