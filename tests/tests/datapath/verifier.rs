//! What the verifier makes of the programs, against a budget for each: a change that doubles the
//! paths through a program is seen here, long before a kernel refuses it (at a million).

use lb_agent::datapath::{Verified, verify};

/// Name of a program, and how many instructions the verifier may go through, on whichever kernel.
///
/// A quarter above the most that is seen on Linux 6.1, 6.12, 6.18 and 7.2 (6.1 takes a third more
/// than 6.18), rounded up. To raise
/// one honestly: have `cargo xtask test kernels` print what each kernel takes, say in the commit
/// what the program does more, and set a quarter above the most again. If a loop or a branch early
/// in the program multiplied the paths, move it instead.
const BUDGETS: [(&str, u32); 17] = [
    ("lb_clock", 4),
    ("lb_connect4", 400),
    ("lb_connect6", 500),
    ("lb_getpeername4", 80),
    ("lb_getpeername6", 150),
    ("lb_pass", 4),
    ("lb_recvmsg4", 200),
    ("lb_recvmsg6", 400),
    ("lb_sendmsg4", 1_300),
    ("lb_sendmsg6", 1_300),
    ("lb_sock_release", 40),
    ("lb_tc_detour", 580_000),
    ("lb_tc_egress", 15_000),
    ("lb_tc_finish", 110_000),
    ("lb_tc_ingress", 110_000),
    ("lb_xdp", 110_000),
    ("lb_xdp_detour", 410_000),
];

/// What is wrong with the programs, each in a sentence.
fn faults(programs: &[Verified], budgets: &[(&str, u32)]) -> Vec<String> {
    let budget_of = |program: &str| budgets.iter().find(|(name, _)| *name == program);
    let over = programs.iter().filter_map(|program| {
        let name = &program.name;
        let Some((_, budget)) = budget_of(name) else {
            return Some(format!("{name} has no budget"));
        };
        match program.instructions {
            None => Some(format!("the kernel does not tell how it went with {name}")),
            Some(taken) if taken > *budget => {
                Some(format!("{name} took {taken} instructions of {budget}"))
            }
            Some(_) => None,
        }
    });
    let gone = budgets
        .iter()
        .filter(|(name, _)| programs.iter().all(|program| program.name != *name))
        .map(|(name, _)| format!("{name} has a budget and is no program"));
    over.chain(gone).collect()
}

/// Prints what each program takes; `cargo xtask test kernels` shows it for each kernel.
#[test]
fn every_program_is_within_its_budget() {
    let programs = verify().unwrap();
    for program in &programs {
        let number = |value: Option<u32>| value.map_or("?".to_owned(), |value| value.to_string());
        println!(
            "verifier: {} took {} instructions; {} bytes translated, {} of machine code",
            program.name,
            number(program.instructions),
            number(program.translated),
            program.machine_code
        );
    }
    let faults = faults(&programs, &BUDGETS);
    assert!(faults.is_empty(), "{}", faults.join("; "));
}

#[test]
fn whoever_has_no_budget_or_exceeds_it_is_named() {
    let program = |name: &str, instructions| Verified {
        name: name.to_owned(),
        instructions,
        translated: None,
        machine_code: 0,
    };
    let budgets = [("a", 10), ("b", 10)];
    let rows = [
        (vec![program("a", Some(10)), program("b", Some(1))], None),
        (
            vec![program("a", Some(11)), program("b", Some(1))],
            Some("a took 11 instructions of 10"),
        ),
        (
            vec![
                program("a", Some(1)),
                program("b", Some(1)),
                program("c", Some(1)),
            ],
            Some("c has no budget"),
        ),
        (
            vec![program("a", Some(1))],
            Some("b has a budget and is no program"),
        ),
        (
            vec![program("a", Some(1)), program("b", None)],
            Some("the kernel does not tell how it went with b"),
        ),
    ];
    for (programs, expected) in rows {
        let found = faults(&programs, &budgets);
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}
