//! Somebody takes our tc filters off an interface, or puts other programs in their place: it is
//! found and mended. (Of links the end-to-end tests tell.)

use std::process::Command;

use lb_agent::{
    datapath::{self, Datapath, Mode},
    domain::{
        drift::{Part, Place},
        kernel::Kernel as _,
    },
};
use lb_tests::world::World;

fn tc(words: &str) -> String {
    let output = Command::new("tc")
        .args(words.split(' '))
        .output()
        .expect("tc runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tc {words}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Number and name of the program of each filter on a side of `front`.
fn filters(side: &str) -> Vec<(String, String)> {
    let text = tc(&format!("filter show dev front {side}"));
    let words: Vec<&str> = text.split_whitespace().collect();
    let value = |at: usize| words[at + 1].to_owned();
    let ids = (0..words.len()).filter(|at| words[*at] == "id").map(value);
    let names = words.iter().filter(|word| word.starts_with("lb_tc_"));
    let mut names: Vec<String> = names.map(ToString::to_string).collect();
    names.dedup();
    ids.zip(names).collect()
}

#[test]
fn filters_are_attached_again() {
    World::with(|world| {
        let mut options = world.options().clone();
        (options.mode, options.tc_filters) = (Mode::Off, true);
        options.interfaces = vec!["front".into()];
        let mut datapath = Datapath::open(&options).unwrap();
        let view = datapath.adopt().unwrap();
        let before = [filters("ingress"), filters("egress")];
        assert_eq!(before.each_ref().map(Vec::len), [1, 1], "{before:?}");
        let mut found = |part| -> Vec<String> {
            let found = datapath.differences(&view, part).unwrap();
            found
                .into_iter()
                .map(|difference| {
                    assert!(matches!(difference.place, Place::Program(_)), "{difference:?}");
                    datapath.mend(&difference.place, &view).unwrap();
                    difference.text
                })
                .collect()
        };
        assert_eq!(found(Part::ALL), Vec::<String>::new());

        // One of two, all of a side with their chain, and the qdisc with everything.
        let front = |role: &str, what: &str| format!("the program on front (tc {role}): {what}");
        let off = |role: &str| front(role, "it was taken off");
        let rows = [
            ("filter del dev front ingress", vec![off("ingress")]),
            ("filter del dev front egress", vec![off("egress")]),
            (
                "qdisc del dev front clsact",
                vec![off("egress"), off("ingress")],
            ),
        ];
        for (harm, texts) in rows {
            tc(harm);
            assert_eq!(found(Part::ALL), texts, "{harm}");
            assert_eq!([filters("ingress"), filters("egress")], before, "{harm}");
            assert_eq!(found(Part::ALL), Vec::<String>::new(), "{harm}");
        }

        // Another program at the very place: one of ours, for others would have to be compiled.
        let other: u32 = before[1][0].0.parse().unwrap();
        let pin = world.pins().join("other");
        let program = aya::programs::loaded_programs()
            .filter_map(Result::ok)
            .find(|program| program.id() == other)
            .expect("it is loaded");
        let mut program = aya::programs::SchedClassifier::from_program_info(program, "other".into()).unwrap();
        program.pin(&pin).unwrap();
        tc(&format!(
            "filter replace dev front ingress prio 19522 protocol all handle 1 bpf direct-action object-pinned {}",
            pin.display()
        ));
        assert_eq!(filters("ingress")[0].0, before[1][0].0);
        let another = front("ingress", "it was another program");
        assert_eq!(found(Part::ALL), [another]);
        assert_eq!([filters("ingress"), filters("egress")], before);
        std::fs::remove_file(&pin).unwrap();

        drop(datapath);
        datapath::detach(world.pins()).unwrap();
    })
    .unwrap();
}
