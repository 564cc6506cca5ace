//! The command line, made from the table of settings.

use clap::{Arg, ArgMatches, Command};

use crate::settings::{OPTIONS, RawSettings, SettingOption};

/// What init is asked to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Task {
    /// Install the rules, or replace the ones in force.
    Apply,
    /// Print the rules.
    Plan,
    /// Prove by live connections that traffic goes where the rules say.
    Verify,
    /// Remove everything that any run installed.
    Cleanup,
}

const TASKS: [(Task, &str, &str); 4] = [
    (
        Task::Apply,
        "apply",
        "Install the rules in this network namespace, or replace the ones in force without a gap",
    ),
    (Task::Plan, "plan", "Print the rules with their reasons; changes nothing, needs no privilege"),
    (Task::Verify, "verify", "Prove by live connections that traffic goes where the rules say"),
    (Task::Cleanup, "cleanup", "Remove everything that any run of any backend installed"),
];

const AFTER_HELP: &str = "\
Examples:
  outrider-init plan                                  what apply would do, and why
  outrider-init apply                                 capture all TCP, both ways, IPv4 and IPv6
  outrider-init apply --exclude-outbound-cidrs 10.8.0.0/16
  OUTRIDER_INIT_GUARD=off outrider-init apply         the same settings by environment; flags win

Exit codes:
  0  done
  1  reading or writing failed
  2  a setting cannot be used; every mistake is listed with what is allowed
  3  not permitted: needs NET_ADMIN, for the legacy tools NET_RAW too
  4  a tool is missing: iptables-restore or nft
  5  the tools or the kernel refused; what was in force before stays
  6  verify: traffic does not follow the rules";

/// The parser of the command line.
pub fn command() -> Command {
    let command = Command::new("outrider-init")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Puts a pod's traffic in front of outrider-proxy: run once, in the pod's network namespace")
        .after_help(AFTER_HELP)
        .subcommand_required(true)
        .arg_required_else_help(true);
    TASKS.iter().fold(command, |command, (_, name, about)| {
        let task = Command::new(*name).about(*about).after_help(AFTER_HELP);
        command.subcommand(task.args(OPTIONS.iter().map(argument)))
    })
}

/// Task and settings of a parsed command line.
pub fn read(matches: &ArgMatches) -> Option<(Task, RawSettings)> {
    let (given, matches) = matches.subcommand()?;
    let (task, ..) = TASKS.iter().find(|(_, name, _)| *name == given)?;
    let values = OPTIONS
        .iter()
        .filter_map(|option| {
            let value: &String = matches.get_one(option.name)?;
            Some((option.name, value.clone()))
        })
        .collect();
    Some((*task, RawSettings { values }))
}

fn argument(option: &SettingOption) -> Arg {
    let default = if option.default.is_empty() { "empty" } else { option.default };
    let help = format!("{} [{}; default: {default}]", option.help, option.form);
    Arg::new(option.name)
        .long(option.name)
        .env(option.variable)
        .hide_env_values(true)
        .value_name("VALUE")
        .allow_hyphen_values(true)
        .help(help)
}
