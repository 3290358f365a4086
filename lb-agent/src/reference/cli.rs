//! `cli.md`: every command with its arguments, as clap knows them.

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::{cell, settle};

#[test]
fn page() {
    let mut command = crate::cli::command();
    command.build();
    let mut page = String::from("# Command line\n\n");
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    writeln!(page, "{about}. `help COMMAND` says the same.\n").unwrap();
    let exits = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    writeln!(
        page,
        "```text\n{}\n```\n\n## Global options\n",
        exits.trim()
    )
    .unwrap();
    let global = command.get_arguments().filter(|arg| arg.is_global_set());
    arguments(&mut page, global);
    for sub in command.get_subcommands() {
        describe(&mut page, "lb-agent", sub);
    }
    settle("cli.md", &page);
}

/// The command, and those below it. Groups have no entry of their own.
fn describe(page: &mut String, above: &str, command: &Command) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{above} {}", command.get_name());
    if command.has_subcommands() {
        for sub in command.get_subcommands() {
            describe(page, &name, sub);
        }
        return;
    }
    let help = command.get_long_about().or_else(|| command.get_about());
    let help = help.map(ToString::to_string).unwrap_or_default();
    write!(page, "\n## `{name}`\n\n{}\n", help.trim()).unwrap();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    write!(page, "\n```text\n{usage}\n```\n").unwrap();
    let own = command.get_arguments();
    let own: Vec<&Arg> = own
        .filter(|arg| !arg.is_global_set() && arg.get_id() != "help")
        .collect();
    if !own.is_empty() {
        page.push('\n');
        arguments(page, own.into_iter());
    }
}

fn arguments<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    page.push_str("| argument | default | meaning |\n| --- | --- | --- |\n");
    for argument in arguments.filter(|argument| !argument.is_hide_set()) {
        let help = argument.get_long_help().or_else(|| argument.get_help());
        let mut help = help.map(ToString::to_string).unwrap_or_default();
        if let Some(variable) = argument.get_env() {
            help.push_str(&format!(" (environment: `{}`)", variable.to_string_lossy()));
        }
        let values = argument.get_possible_values();
        if argument.get_action().takes_values() && !values.is_empty() {
            let names: Vec<String> = values
                .iter()
                .map(|value| format!("`{}`", value.get_name()))
                .collect();
            help.push_str(&format!(": {}", names.join(", ")));
        }
        let default: Vec<String> = argument
            .get_default_values()
            .iter()
            .filter(|_| argument.get_action().takes_values())
            .map(|value| format!("`{}`", value.to_string_lossy()))
            .collect();
        // `--timeout <TIME>` is how clap writes it.
        let written = argument.to_string();
        let short = argument
            .get_short()
            .filter(|_| argument.get_long().is_some());
        let short = short
            .map(|short| format!("`-{short}`, "))
            .unwrap_or_default();
        writeln!(
            page,
            "| {short}`{}` | {} | {} |",
            cell(&written),
            default.join(", "),
            cell(&help)
        )
        .unwrap();
    }
}
