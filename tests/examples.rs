//! The examples do what they say. `call_wav` and `send_file` need an account; `tests/cli_surface.rs` does the same through the command.

#[path = "../examples/sans_io.rs"]
mod sans_io;

#[test]
fn two_endpoints_without_a_runtime_hear_each_other() {
    if let Err(why) = sans_io::main() {
        panic!("examples/sans_io.rs: {why}");
    }
}
