//! From rows to cells.

use super::{super::picture::Traffic, *};

fn service(name: &str, healthy: u32, backends: u32) -> ServiceRow {
    ServiceRow {
        name: name.into(),
        vips: vec!["198.51.100.10:80".into(), "[2001:db8::1]:80".into()],
        protocol: "tcp".into(),
        traffic: Traffic {
            packets_per_second: Some(1234.0),
            bytes_per_second: Some(125_000.0),
            new_flows_per_second: None,
            flows: 3,
        },
        backends,
        backends_healthy: healthy,
        more: vec![("probe", "http".into()), ("notes", String::new())],
        ..ServiceRow::default()
    }
}

fn texts(row: &Row) -> Vec<&str> {
    row.cells.iter().map(|cell| cell.text.as_str()).collect()
}

#[test]
fn every_row_has_a_cell_for_every_column() {
    let picture = Picture {
        services: vec![service("echo", 1, 2)],
        backends: vec![BackendRow::default()],
        drops: vec![DropRow::default()],
        blocks: vec![BlockRow::default()],
        events: vec![EventRow::default()],
        ..Picture::default()
    };
    for pane in Pane::ALL {
        let sheet = sheet(&picture, pane, Order::default(), "");
        assert_eq!(sheet.rows.len(), 1);
        assert_eq!(sheet.rows[0].cells.len(), sheet.columns.len(), "{pane:?}");
        for key in pane.keys() {
            let shown = sheet.columns.iter().any(|column| column.key == Some(*key));
            assert!(shown, "{pane:?} is sorted by {key:?}, which is no column");
        }
        // What is narrow must not lose what names the row.
        assert_eq!(sheet.columns[0].dispensable, 0, "{pane:?}");
    }
}

#[test]
fn a_service_reads_as_a_row() {
    let picture = Picture {
        services: vec![service("echo", 1, 2)],
        ..Picture::default()
    };
    let sheet = sheet(&picture, Pane::Services, Order::default(), "");
    assert_eq!(
        texts(&sheet.rows[0]),
        [
            "echo",
            "198.51.100.10:80 +1",
            "tcp",
            "1.23k",
            "1.00Mbit",
            "-",
            "3",
            "1/2",
            ""
        ]
    );
}

#[test]
fn tones_say_how_grave_it_is() {
    let rows = [
        (0, 0, Tone::Bad),
        (0, 2, Tone::Bad),
        (1, 2, Tone::Warn),
        (2, 2, Tone::Good),
    ];
    for (healthy, backends, tone) in rows {
        let row = super::service(&service("x", healthy, backends));
        assert_eq!(row.cells[7].tone, tone, "{healthy}/{backends}");
    }
    let rows = [
        ("healthy", "", "healthy", Tone::Good),
        ("warning", "", "warning", Tone::Warn),
        ("unhealthy", "", "unhealthy", Tone::Bad),
        ("healthy", "draining", "draining", Tone::Warn),
        ("ejected", "ejected", "ejected", Tone::Bad),
    ];
    for (health, condition, word, tone) in rows {
        let row = backend(&BackendRow {
            health: health.into(),
            condition: condition.into(),
            ..BackendRow::default()
        });
        assert_eq!(
            (row.cells[1].text.as_str(), row.cells[1].tone),
            (word, tone)
        );
    }
}

#[test]
fn a_filter_looks_into_every_cell() {
    let picture = Picture {
        services: vec![service("Echo", 1, 2), service("web", 2, 2)],
        ..Picture::default()
    };
    let rows = [
        ("", 2, 0),
        ("ECH", 1, 1),
        ("2/2", 1, 1),
        ("198.51", 2, 0),
        ("nowhere", 0, 2),
    ];
    for (filter, shown, hidden) in rows {
        let sheet = sheet(&picture, Pane::Services, Order::default(), filter);
        assert_eq!(
            (sheet.rows.len(), sheet.hidden),
            (shown, hidden),
            "{filter}"
        );
    }
}

#[test]
fn bars_are_exact_to_an_eightieth() {
    let rows = [
        (0.0, ""),
        (0.01, "▏"),
        (5.0, "▌"),
        (10.0, "█"),
        (33.3, "███▍"),
        (99.9, "██████████"),
        (100.0, "██████████"),
    ];
    for (percent, expected) in rows {
        assert_eq!(bar(percent), expected, "{percent}");
    }
}

#[test]
fn detail_has_what_the_row_has_no_room_for() {
    let picture = Picture {
        services: vec![service("echo", 1, 2)],
        ..Picture::default()
    };
    let facts = detail(&picture, Pane::Services, "echo").unwrap();
    assert!(facts.contains(&("VIP", "198.51.100.10:80, [2001:db8::1]:80".into())));
    assert!(facts.contains(&("probe", "http".into())));
    assert!(facts.iter().all(|(_, text)| !text.is_empty()), "{facts:?}");
    assert_eq!(detail(&picture, Pane::Services, "gone"), None);
}

#[test]
fn foreign_words_cannot_steer_the_terminal() {
    let row = block(&BlockRow {
        reason: "\u{1b}[2Jscan\nagain".into(),
        ..BlockRow::default()
    });
    assert_eq!(row.cells[4].text, "[2Jscan again");
}
