//! The `inferno` command, built beside the tests that run it.

fn main() -> std::process::ExitCode {
    inferno::main()
}
