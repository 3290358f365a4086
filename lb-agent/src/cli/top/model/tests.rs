//! Keys and looks, and what becomes of the screen.

use super::*;
use crate::api::proto::{Backend, Counters, Service};

const SECOND: Duration = Duration::from_secs(1);

fn look(services: &[(&str, u64)], backends_of: Option<&str>) -> Look {
    Look {
        services: services
            .iter()
            .map(|(name, packets)| Service {
                name: (*name).into(),
                counters: Some(Counters {
                    packets_in: *packets,
                    ..Default::default()
                }),
                ..Default::default()
            })
            .collect(),
        backends_of: backends_of.map(str::to_owned),
        backends: vec![Backend::default(); usize::from(backends_of.is_some())],
        ..Look::default()
    }
}

/// Three services at rest.
fn model() -> Model {
    let mut model = Model::new(SECOND, None, Order::default());
    model.took(look(&[("a", 0), ("b", 0), ("c", 0)], Some("a")), SECOND);
    model
}

fn selected(model: &Model) -> String {
    model.selected(Pane::Services).unwrap()
}

fn type_(model: &mut Model, keys: &str) {
    for key in keys.chars() {
        model.press(match key {
            '\n' => Press::Enter,
            '\t' => Press::Tab,
            '\u{1b}' => Press::Escape,
            '\u{8}' => Press::Backspace,
            c => Press::Character(c),
        });
    }
}

#[test]
fn keys_move_the_selection_and_ask_for_its_backends() {
    let rows = [
        ("", "a"),
        ("j", "b"),
        ("jj", "c"),
        ("jjj", "c"),
        ("jjk", "b"),
        ("k", "a"),
        ("G", "c"),
        ("Gg", "a"),
    ];
    for (keys, expected) in rows {
        let mut model = model();
        type_(&mut model, keys);
        assert_eq!(selected(&model), expected, "{keys}");
        assert_eq!(model.wanted().backends_of.as_deref(), Some(expected));
        assert_eq!(model.backends_are_known(), expected == "a", "{keys}");
        assert_eq!(model.sheet(Pane::Backends).rows.is_empty(), expected != "a");
    }
    let mut model = model();
    assert_eq!(model.press(Press::Up), Effect::Nothing);
    assert_eq!(model.press(Press::Down), Effect::Ask);
    assert_eq!(model.press(Press::PageDown), Effect::Ask);
    assert_eq!(model.press(Press::PageDown), Effect::Nothing);
}

#[test]
fn the_selection_stays_with_its_service_when_rows_move() {
    let mut model = model();
    type_(&mut model, "j");
    model.took(
        look(&[("a", 10), ("b", 0), ("c", 20)], Some("b")),
        2 * SECOND,
    );
    let order: Vec<String> = ids(&model);
    assert_eq!(order, ["c", "a", "b"]);
    assert_eq!(selected(&model), "b");
    // It is gone: whoever stands where it was seen last is next.
    model.took(look(&[("a", 10), ("c", 20)], None), 3 * SECOND);
    assert_eq!(selected(&model), "c");
}

fn ids(model: &Model) -> Vec<String> {
    let sheet = model.sheet(Pane::Services);
    sheet.rows.into_iter().map(|row| row.id).collect()
}

#[test]
fn the_column_is_chosen_and_turned() {
    let mut model = model();
    let busy = look(&[("a", 10), ("b", 30), ("c", 20)], Some("a"));
    model.took(busy, 2 * SECOND);
    let rows = [
        ("", "bca"),
        ("r", "acb"),
        // The next column begins with its right end up.
        ("s", "abc"),
        ("ssss", "abc"),
        ("r", "cba"),
        ("s", "bca"),
    ];
    for (keys, expected) in rows {
        type_(&mut model, keys);
        assert_eq!(ids(&model).concat(), expected, "{keys}");
    }
    // Panes that have one order only stay in it.
    type_(&mut model, "\t\ts");
    assert_eq!(model.order(Pane::Drops), Order::default());
}

#[test]
fn a_filter_is_typed_kept_and_cleared() {
    let mut model = model();
    type_(&mut model, "/q?");
    assert!(model.typing, "keys are letters now");
    assert_eq!(model.filter(Pane::Services), "q?");
    assert_eq!(model.selected(Pane::Services), None);
    type_(&mut model, "\u{8}\u{8}c");
    assert_eq!(ids(&model), ["c"]);
    assert_eq!(model.wanted().backends_of.as_deref(), Some("c"));
    type_(&mut model, "\n");
    assert!(!model.typing);
    assert_eq!(ids(&model), ["c"]);
    type_(&mut model, "\u{1b}");
    assert_eq!(ids(&model), ["a", "b", "c"]);
    assert_eq!(selected(&model), "a");
}

#[test]
fn what_lies_over_the_panes_goes_by_any_key() {
    let mut model = model();
    type_(&mut model, "?");
    assert!(model.help);
    type_(&mut model, "q");
    assert!(!model.help, "and nothing else happens");
    type_(&mut model, "\n");
    assert!(model.detail);
    // The details of the next one, without closing them.
    type_(&mut model, "j");
    assert!(model.detail);
    assert_eq!(selected(&model), "b");
    assert_eq!(model.press(Press::Interrupt), Effect::Quit);
    type_(&mut model, "\u{1b}");
    assert!(!model.detail);
    // There is no row to tell of.
    type_(&mut model, "\t\t\n");
    assert!(!model.detail);
}

#[test]
fn the_end_and_the_shell_are_a_key_away_wherever_one_is() {
    for keys in ["", "/", "?", "\n", "p"] {
        let mut model = model();
        type_(&mut model, keys);
        assert_eq!(model.press(Press::Suspend), Effect::Suspend, "{keys}");
        assert_eq!(model.press(Press::Interrupt), Effect::Quit, "{keys}");
    }
    assert_eq!(model().press(Press::Character('q')), Effect::Quit);
}

#[test]
fn an_agent_that_is_gone_leaves_a_stale_picture() {
    let mut model = model();
    let stale = |model: &Model, seconds: u32| {
        let stale = model.stale(SECOND * seconds);
        stale.map(|stale| (stale.age.as_secs(), stale.why))
    };
    assert_eq!(stale(&model, 2), None);
    // Nothing is known to be wrong, but it should have answered.
    assert_eq!(stale(&model, 7), Some((6, None)));
    model.failed("gone".into());
    assert_eq!(stale(&model, 2), Some((1, Some("gone".into()))));
    assert_eq!(ids(&model), ["a", "b", "c"], "the last picture stays");
    model.took(look(&[("a", 0)], None), SECOND * 9);
    assert_eq!(stale(&model, 10), None);
    type_(&mut model, "p");
    assert_eq!(stale(&model, 1000), None, "that is what a pause is for");
}

#[test]
fn a_service_that_was_asked_for_is_selected_from_the_start() {
    let mut model = Model::new(SECOND, Some("c".into()), Order::default());
    assert_eq!(model.wanted().backends_of.as_deref(), Some("c"));
    model.took(look(&[("a", 0), ("b", 0), ("c", 0)], Some("c")), SECOND);
    assert_eq!(selected(&model), "c");
    assert!(model.backends_are_known());
}
