//! The binary `weir`: all it does is in [`proxy_user::cli`].

fn main() -> std::process::ExitCode {
    proxy_user::cli::main()
}
