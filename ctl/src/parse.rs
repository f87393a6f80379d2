//! Command lines read as Docker's users type them, and what is said of those that are wrong.
//!
//! The definition in `cli.rs` is plain; here it takes on the rules of Docker's command: a flag that
//! is on or off may be given a value (`--rm=false`), the last of several counts, and a flag with a
//! value takes the next word whatever it looks like. What follows the image of `run`, or the
//! container of `exec`, is a command's and never a flag of ours: see [`Words`].

use std::ffi::OsString;
use std::fmt;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Subcommand};

use crate::cli::Cli;
use crate::failure::status;

/// The first word that is no flag, and all after it as they are typed. To clap that is a command
/// of a name that it does not know.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Words {
    /// At least one.
    #[command(external_subcommand)]
    Words(Vec<String>),
}

impl Words {
    /// The first word and the others.
    pub(crate) fn split(self) -> (String, Vec<String>) {
        let Self::Words(mut words) = self;
        let rest = words.split_off(words.len().min(1));
        (words.pop().unwrap_or_default(), rest)
    }
}

/// A command line that is not carried out.
#[derive(Debug)]
pub(crate) struct Refused {
    text: String,
    status: i32,
    to_stdout: bool,
}

impl Refused {
    /// The exit status, by which Docker's users tell what was wrong.
    pub(crate) fn status(&self) -> i32 {
        self.status
    }

    /// Whether the text is what was asked for, such as help.
    pub(crate) fn is_answer(&self) -> bool {
        self.to_stdout
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads a command line, the program's name first.
pub(crate) fn parse<T: Into<OsString>>(line: impl IntoIterator<Item = T>) -> Result<Cli, Refused> {
    let mut definition = dockers(Cli::command());
    let line: Vec<OsString> = line.into_iter().map(Into::into).collect();
    let matches = definition.try_get_matches_from_mut(&line);
    let parsed = matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| {
        let command = command_of(&definition, &line);
        refused(&mut definition, &command, &error)
    })
}

/// The refusal of `count` or more words that are not there.
pub(crate) fn too_few(command: &str, count: usize) -> String {
    see(command, &format!("\"{command}\" requires at least {}.", arguments(count)))
}

/// A definition with the rules of Docker's command.
fn dockers(command: Command) -> Command {
    let command = command.args_override_self(true).mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => switch(arg),
        ArgAction::Set | ArgAction::Append if !arg.is_positional() => arg.allow_hyphen_values(true),
        _ => arg,
    });
    command.mut_subcommands(|command| {
        dockers(command).disable_help_subcommand(true).arg_required_else_help(false)
    })
}

/// Whether it has [`Words`].
fn takes_words(command: &Command) -> bool {
    command.is_subcommand_required_set()
}

/// A flag that is on or off, on when nothing else is said.
fn switch(arg: Arg) -> Arg {
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .value_name("BOOL")
        .default_value("false")
        .default_missing_value("true")
        .hide_default_value(true)
        .value_parser(parse_bool)
}

/// The words that Docker's command, written in Go, takes for true and false.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("give true or false".to_owned()),
    }
}

fn refused(definition: &mut Command, command: &str, error: &Error) -> Refused {
    let is_root = !command.contains(' ');
    let usage =
        |text: String, status| Refused { text: see(command, &text), status, to_stdout: false };
    let typed = text(error, ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Refused { text: error.to_string().trim_end().to_owned(), status: 0, to_stdout: true }
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => help(definition),
        ErrorKind::MissingSubcommand if is_root => help(definition),
        ErrorKind::InvalidSubcommand => {
            let name = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            usage(format!("berth: '{name}' is not a berth command."), 1)
        }
        ErrorKind::UnknownArgument if typed.starts_with("--") => {
            usage(format!("unknown flag: {typed}"), status::ENGINE)
        }
        ErrorKind::UnknownArgument if typed.starts_with('-') => {
            usage(format!("unknown shorthand flag: {typed}"), status::ENGINE)
        }
        ErrorKind::UnknownArgument
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand => usage(wrong_count(definition, command), 1),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            usage(invalid_value(error, &typed), status::ENGINE)
        }
        _ => usage(first_line(error), status::ENGINE),
    }
}

/// As Docker's command answers nothing but its name.
fn help(definition: &mut Command) -> Refused {
    let text = definition.render_help().to_string();
    Refused { text: text.trim_end().to_owned(), status: 0, to_stdout: true }
}

fn see(command: &str, text: &str) -> String {
    format!("{text}\nSee '{command} --help'.")
}

/// The command that a line is about, such as `berth run`: errors don't tell.
fn command_of(definition: &Command, line: &[OsString]) -> String {
    let mut words = line.iter().skip(1).filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            return match definition.find_subcommand(word) {
                Some(_) => format!("berth {word}"),
                None => "berth".to_owned(),
            };
        }
        if definition.get_opts().any(|option| is_typed(option, word)) {
            words.next();
        }
    }
    "berth".to_owned()
}

/// Whether a word is an option and nothing more, whose value is then the next word.
fn is_typed(option: &Arg, word: &str) -> bool {
    let long = option.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
    let short = option.get_short().is_some_and(|short| word == format!("-{short}"));
    long || short
}

fn text(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(", ")),
        _ => None,
    }
}

/// How many words a command takes.
fn wrong_count(definition: &Command, command: &str) -> String {
    let name = command.rsplit(' ').next().unwrap_or_default();
    let Some(definition) = definition.find_subcommand(name) else {
        return format!("\"{command}\" has too many or too few arguments.");
    };
    if takes_words(definition) {
        return format!("\"{command}\" requires at least {}.", arguments(1));
    }
    let positionals: Vec<&Arg> = definition.get_positionals().collect();
    let required = positionals.iter().filter(|arg| arg.is_required_set()).count();
    let is_open = positionals.iter().any(|arg| matches!(arg.get_action(), ArgAction::Append));
    let how = match positionals.len() {
        0 => return format!("\"{command}\" accepts no arguments."),
        _ if is_open => "at least",
        all if all == required => "exactly",
        all => return format!("\"{command}\" requires at most {}.", arguments(all)),
    };
    format!("\"{command}\" requires {how} {}.", arguments(required))
}

fn arguments(count: usize) -> String {
    format!("{count} argument{}", if count == 1 { "" } else { "s" })
}

fn invalid_value(error: &Error, argument: &str) -> String {
    let flag = argument.split([' ', '[']).next().unwrap_or_default();
    let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
    let why = match (std::error::Error::source(error), text(error, ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, _) if value.is_empty() => return format!("flag needs an argument: {flag}"),
        (None, Some(valid)) => format!("give one of {valid}"),
        (None, None) => "it can't be used".to_owned(),
    };
    format!("invalid argument \"{value}\" for \"{flag}\" flag: {why}")
}

fn first_line(error: &Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command as Typed;

    fn typed(line: &str) -> Result<Typed, Refused> {
        parse(line.split(' ')).map(Cli::into_command)
    }

    /// What was typed after `berth run`, as the daemon is asked.
    #[track_caller]
    fn run(line: &str) -> berth_proto::berth::v1::ContainerOptions {
        match typed(&format!("berth run {line}")) {
            Ok(Typed::Run(run)) => run.into_message().expect("options"),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        dockers(Cli::command()).debug_assert();
    }

    #[test]
    fn values_are_attached_to_short_flags_or_not() {
        for line in ["-w/tmp i", "-w /tmp i", "-w=/tmp i", "--workdir=/tmp i", "-itw/tmp i"] {
            assert_eq!(run(line).working_directory, "/tmp", "{line}");
        }
        for line in ["-eA=b i", "-e A=b i", "-e=A=b i", "--env=A=b i", "-iteA=b i"] {
            assert_eq!(run(line).env, ["A=b"], "{line}");
        }
        for line in ["-m64m i", "-m 64m i", "-m=64m i", "-im64m i"] {
            assert_eq!(run(line).resources.map(|some| some.memory), Some(64 << 20), "{line}");
        }
        for line in ["-u0 i", "-u=0 i", "-itu0 i"] {
            assert_eq!(run(line).user, "0", "{line}");
        }
        for line in ["-v/a:/b i", "-v /a:/b i", "-v=/a:/b i", "-itv/a:/b:rw i"] {
            assert_eq!(run(line).binds[0].destination, "/b", "{line}");
        }
        let all = run("-itu0:1 --rm -hbox -lx=y -eA -m64m -w/x -e B=c i");
        assert_eq!((&*all.hostname, all.remove, all.stdin, all.tty), ("box", true, true, true));
    }

    #[test]
    fn switches_take_values() {
        let cases = [
            ("i", [false; 4]),
            ("-it --rm --init i", [true; 4]),
            ("-it=false --rm=true i", [true, false, true, false]),
            ("-i=0 --tty=T --rm=false --init=1 i", [false, true, false, true]),
            ("-i -i=false --tty --tty=false --rm --rm i", [false, false, true, false]),
            ("--interactive=true --init=False i", [true, false, false, false]),
        ];
        for (line, expected) in cases {
            let options = run(line);
            let got = [options.stdin, options.tty, options.remove, options.init];
            assert_eq!(got, expected, "{line}");
        }
        assert!(matches!(typed("berth run -dit i"), Ok(Typed::Run(_))));
    }

    #[test]
    fn what_follows_the_image_is_the_commands() {
        let cases: [(&str, &[&str]); 7] = [
            ("i", &[]),
            ("i -w /x", &["-w", "/x"]),
            ("--rm i sh -c x --rm", &["sh", "-c", "x", "--rm"]),
            ("-- i sh", &["sh"]),
            ("i -- sh", &["--", "sh"]),
            ("--rm -- i --help", &["--help"]),
            ("i help --nosuch -X", &["help", "--nosuch", "-X"]),
        ];
        for (line, command) in cases {
            let options = run(line);
            assert_eq!((&*options.image, &*options.command), ("i", &command.map_owned()[..]));
        }
        assert_eq!(run("help help").image, "help");
    }

    trait Owned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl Owned for &[&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(|&word| word.to_owned()).collect()
        }
    }

    #[test]
    fn execs_are_read_alike() {
        for line in ["-itw/tmp one ls -l", "-i -t=1 -w=/tmp one ls -l", "-itw/tmp -- one ls -l"] {
            match typed(&format!("berth exec {line}")) {
                Ok(Typed::Exec(exec)) => {
                    let asked = exec.into_options().expect("options");
                    assert_eq!((&*asked.container, &*asked.working_directory), ("one", "/tmp"));
                    assert_eq!((asked.command, asked.tty), (vec!["ls".into(), "-l".into()], true));
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn values_may_begin_with_a_hyphen() {
        for line in ["logs --tail -1 one", "logs -n-1 one", "stop -t -1 one", "run -w -x i"] {
            assert!(typed(&format!("berth {line}")).is_ok(), "{line}");
        }
    }

    #[test]
    fn refusals_are_short_and_have_dockers_statuses() {
        let cases = [
            ("berth nosuch", 1, "berth: 'nosuch' is not a berth command.\nSee 'berth --help'."),
            ("berth --nosuch", 125, "unknown flag: --nosuch\nSee 'berth --help'."),
            ("berth run --nosuch i", 125, "unknown flag: --nosuch\nSee 'berth run --help'."),
            ("berth run -X i", 125, "unknown shorthand flag: -X\nSee 'berth run --help'."),
            ("berth ps --nosuch", 125, "unknown flag: --nosuch\nSee 'berth ps --help'."),
            ("berth exec -p one ls", 125, "unknown shorthand flag: -p\nSee 'berth exec --help'."),
            (
                "berth run",
                1,
                "\"berth run\" requires at least 1 argument.\nSee 'berth run --help'.",
            ),
            ("berth exec", 1, "requires at least 1 argument"),
            ("berth rm", 1, "\"berth rm\" requires at least 1 argument."),
            ("berth ps extra", 1, "\"berth ps\" accepts no arguments."),
            ("berth tag a", 1, "\"berth tag\" requires exactly 2 arguments."),
            ("berth tag a b c", 1, "\"berth tag\" requires exactly 2 arguments."),
            ("berth images a b", 1, "\"berth images\" requires at most 1 argument."),
            ("berth run -m x i", 125, "invalid argument \"x\" for \"--memory\" flag: invalid size"),
            ("berth run --net y i", 125, "for \"--network\" flag: give one of none, host"),
            ("berth run --rm=x i", 125, "for \"--rm\" flag: give true or false"),
            ("berth run -it=x i", 125, "invalid argument \"x\" for \"--tty\" flag"),
            ("berth run --net", 125, "flag needs an argument: --network"),
            ("berth run -w", 125, "flag needs an argument: --workdir\nSee 'berth run --help'."),
            ("berth -n run ps -X", 125, "unknown shorthand flag: -X\nSee 'berth ps --help'."),
        ];
        for (line, code, words) in cases {
            let refused = typed(line).expect_err(line);
            assert!(refused.to_string().contains(words), "{line}: {refused}");
            assert_eq!((refused.status(), refused.is_answer()), (code, false), "{line}");
        }
        for line in ["berth", "berth --help", "berth run --help", "berth --version"] {
            let words: Vec<_> = line.split(' ').collect();
            let help = parse(words).map(|_| ()).expect_err(line);
            assert_eq!((help.status(), help.is_answer()), (0, true), "{line}: {help}");
        }
    }
}
