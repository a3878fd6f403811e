//! `baton`: the director, and the commands that people who run one know.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    control::cli::main()
}
