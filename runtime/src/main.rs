//! The one binary.

/// A run is many small pieces of memory, made by one thread and freed by another: a quarter of its time goes with the
/// allocator of the C library (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    match weir::cli::main() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {}", weir::telemetry::told(&error));
            if error.is::<weir::cli::Misused>() { 2.into() } else { std::process::ExitCode::FAILURE }
        }
    }
}
