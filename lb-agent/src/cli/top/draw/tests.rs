//! Screens of several sizes, as a person would see them.

use ratatui::{Terminal, backend::TestBackend, style::Color};

use super::{
    super::{look::Look, order::Order, press::Press},
    *,
};
use crate::api::proto::{
    Backend, BackendChange, BlockEntry, BlockRule, CatalogCounts, Counters, FlowTable, Service,
    Split, VerdictCount, Watch,
};

const SECOND: Duration = Duration::from_secs(1);

/// A node with some of everything, after `seconds` of steady traffic.
fn look(seconds: u64) -> Look {
    let counters = |packets: u64| Counters {
        packets_in: packets * seconds,
        packets_out: packets * seconds,
        bytes_in: packets * 500 * seconds,
        bytes_out: packets * 1000 * seconds,
        flows_created: packets / 10 * seconds,
        flows_live: packets / 4,
        ..Default::default()
    };
    let service = |name: &str, port: u16, packets, healthy, split: Option<(u32, u32)>| Service {
        name: name.into(),
        protocol: "tcp".into(),
        forwarding: "nat".into(),
        vips: vec![format!("198.51.100.10:{port}")],
        backends: 3,
        backends_healthy: healthy,
        backends_active: healthy,
        split: split.map(|(v1, v2)| Split {
            shares: [("v1".into(), v1), ("v2".into(), v2)].into(),
            ..Default::default()
        }),
        counters: Some(counters(packets)),
        ..Default::default()
    };
    let backend = |number: u32, health: &str, share, packets| Backend {
        service: "echo".into(),
        id: format!("node1/echo-{number}"),
        address: format!("10.1.0.{number}:8080"),
        subset: Some(if number < 3 { "v1" } else { "v2" }.into()),
        health: health.into(),
        share_percent: share,
        weight: 1,
        reason: "share of subset".into(),
        counters: Some(counters(packets)),
        ..Default::default()
    };
    let verdict = |action: &str, name: &str, help: &str, packets: u64| VerdictCount {
        action: action.into(),
        name: name.into(),
        help: help.into(),
        packets: packets * seconds,
        ..Default::default()
    };
    let mut look = Look {
        services: vec![
            service("api", 8443, 40, 3, None),
            service("echo", 80, 1200, 2, Some((90, 10))),
            service("mail", 25, 0, 0, None),
        ],
        backends_of: Some("echo".into()),
        backends: vec![
            backend(2, "healthy", 90.0, 1000),
            Backend {
                disabled_reason: "draining".into(),
                ..backend(3, "healthy", 10.0, 200)
            },
            backend(4, "unhealthy", 0.0, 0),
        ],
        blocks: vec![BlockEntry {
            rule: Some(BlockRule {
                prefix: "192.0.2.0/24".into(),
                reason: "scan".into(),
                expires_unix_ms: Some(4_000_000),
                ..Default::default()
            }),
            dropped_packets: 12 * seconds,
            ..Default::default()
        }],
        changes: vec![BackendChange {
            at_unix_ms: 3_000_000 - 90_000,
            service: "echo".into(),
            address: "10.1.0.4:8080".into(),
            from: "healthy".into(),
            to: "unhealthy".into(),
            reason: "connection refused".into(),
            source: "probe".into(),
            ..Default::default()
        }],
        ..Look::default()
    };
    look.status.agent_version = "1.2.3".into();
    look.status.now_unix_ms = 3_000_000;
    look.status.started_unix_ms = 3_000_000 - 7_320_000;
    look.status.snapshot_version = 42;
    look.status.consul_address = Some("http://127.0.0.1:8500".into());
    look.status.watches = vec![Watch {
        last_success_unix_ms: Some(3_000_000 - 12_000),
        ..Default::default()
    }];
    look.status.catalog = Some(CatalogCounts {
        services: 3,
        services_healthy: 2,
        backends: 9,
        backends_healthy: 5,
    });
    look.status.flow_tables = vec![FlowTable {
        family: "ipv4".into(),
        slots: 65_536,
        used: 620,
        ..Default::default()
    }];
    look.status.block_rules = 1;
    look.status.verdicts = vec![
        verdict("forward", "request", "", 2480),
        verdict("drop", "blocked", "its source is on the block list", 12),
        verdict("drop", "no_backend", "no backend takes new flows", 3),
    ];
    look
}

fn model() -> Model {
    let mut model = Model::new(SECOND, Some("echo".into()), Order::default());
    model.took(look(100), SECOND);
    for more in 1..40 {
        // A wave, so that the course is seen.
        let wave = (more * more) % 7;
        model.took(look(100 + more * 7 + wave), SECOND * (1 + more as u32));
    }
    model.took(look(100 + 40 * 7 + 6), SECOND * 41);
    model
}

fn terminal(model: &Model, theme: Theme, (width, height): (u16, u16)) -> Terminal<TestBackend> {
    let setting = Setting {
        host: "node1".into(),
        theme,
    };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = SECOND * 41;
    terminal
        .draw(|frame| draw(frame, model, &setting, now))
        .unwrap();
    terminal
}

fn screen(model: &Model, size: (u16, u16)) -> String {
    let terminal = terminal(model, Theme::PLAIN, size);
    let buffer = terminal.backend().buffer();
    let lines = buffer
        .content()
        .chunks(usize::from(size.0).max(1))
        .map(|cells| {
            let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
            format!("{}\n", line.trim_end())
        });
    lines.collect()
}

/// Each size shows what it has room for; words that must and must not be on the screen.
#[test]
fn the_room_decides_what_is_seen() {
    let everything = [
        "lb-agent 1.2.3 on node1, up 2h 2m, state 42",
        "in sync, heard 12s ago",
        "packets/s",
        "198.51.100.10:80",
        "v1=90 v2=10",
        "Backends of echo",
        "draining",
        "█████████",
        "Drops",
        "no_backend",
        "Blocks",
        "192.0.2.0/24",
        "16m 40s",
        "Events",
        "healthy → unhealthy",
        "1m 30s",
        "q quit",
    ];
    type Words<'a> = &'a [&'a str];
    let rows: [((u16, u16), Words<'_>, Words<'_>); 5] = [
        ((120, 36), &everything, &[]),
        (
            (80, 36),
            &["Backends of echo", "Events", "packets/s"],
            &["Drops", "Blocks"],
        ),
        (
            (80, 24),
            &[
                "up 2h 2m",
                "echo",
                "HEALTHY",
                "Backends of echo",
                "10.1.0.4:8080",
                "unhealthy",
            ],
            &["Events", "Drops"],
        ),
        (
            (40, 10),
            &["pkt/s", "Services", "echo", "2/3", "q quit"],
            &["Backends of", "consul"],
        ),
        ((20, 4), &["echo"], &[]),
    ];
    for (size, present, absent) in rows {
        let screen = screen(&model(), size);
        for word in present {
            assert!(screen.contains(word), "{size:?} lacks {word:?}:\n{screen}");
        }
        for word in absent {
            assert!(!screen.contains(word), "{size:?} has {word:?}:\n{screen}");
        }
    }
}

/// No size is too small to be drawn, whatever lies over it.
#[test]
fn no_size_is_too_small() {
    for keys in [
        &[][..],
        &[Press::Character('?')],
        &[Press::Enter],
        &[Press::Tab],
    ] {
        let mut model = model();
        for key in keys {
            model.press(*key);
        }
        for size in [
            (0, 0),
            (1, 1),
            (2, 3),
            (5, 40),
            (300, 2),
            (13, 15),
            (99, 28),
            (400, 100),
        ] {
            screen(&model, size);
        }
    }
}

/// Where there is room for one other pane, it is the one with the focus.
#[test]
fn tab_brings_the_other_panes_to_a_small_screen() {
    let mut model = model();
    let titles = [
        "Backends of echo",
        "Drops 2",
        "Blocks 1",
        "Events 1",
        "Services 3",
    ];
    for title in titles {
        model.press(Press::Tab);
        for size in [(80, 36), (80, 24), (40, 10)] {
            let screen = screen(&model, size);
            assert!(screen.contains(title), "{size:?} lacks {title}:\n{screen}");
        }
    }
}

#[test]
fn what_lies_over_the_panes_is_seen() {
    let mut model = model();
    model.press(Press::Character('?'));
    assert!(screen(&model, (80, 24)).contains("sort the pane by its next column"));
    model.press(Press::Escape);
    model.press(Press::Tab);
    model.press(Press::Enter);
    let detail = screen(&model, (80, 24));
    for word in ["Detail", "node1/echo-2", "any key goes back"] {
        assert!(detail.contains(word), "{word}:\n{detail}");
    }
    model.press(Press::Escape);
    model.press(Press::Character('/'));
    model.press(Press::Character('z'));
    let filtered = screen(&model, (120, 36));
    for word in ["filter: z", "nothing fits the filter"] {
        assert!(filtered.contains(word), "{word}:\n{filtered}");
    }
}

#[test]
fn problems_pauses_and_stale_pictures_are_seen_at_every_size() {
    let sizes = [(120, 36), (80, 24), (40, 10)];
    let seen = |model: &Model, word: &str| {
        for size in sizes {
            let screen = screen(model, size);
            assert!(screen.contains(word), "{size:?} lacks {word}:\n{screen}");
        }
    };
    let mut model = model();
    seen(&model, "● healthy");
    let mut wrong = look(400);
    wrong.status.problems = vec!["interface eth0 is gone".into()];
    model.took(wrong, SECOND * 41);
    seen(&model, "✗ 1 problem");
    assert!(screen(&model, (80, 24)).contains("interface eth0 is gone"));
    model.press(Press::Character('p'));
    seen(&model, "PAUSED");
    model.failed("the agent is not running".into());
    seen(&model, "STALE 0s");
    assert!(screen(&model, (80, 24)).contains("the agent is not running"));
}

#[test]
fn colours_are_there_unless_they_are_forbidden() {
    for (theme, coloured) in [(Theme::COLOURED, true), (Theme::PLAIN, false)] {
        let terminal = terminal(&model(), theme, (120, 36));
        let cells = terminal.backend().buffer().content();
        let any = cells
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(any, coloured, "{theme:?}");
    }
}

/// The picture in the documentation is this screen.
#[test]
fn the_picture_in_the_documentation_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/images/top.txt");
    let screen = screen(&model(), (120, 36));
    if std::env::var_os("LB_WRITE_DOCS").is_some() {
        std::fs::write(file, &screen).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap();
    assert_eq!(
        kept, screen,
        "LB_WRITE_DOCS=1 with this test writes it anew"
    );
}
