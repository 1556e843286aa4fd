//! Compiles one component: `weir-compile <component.wasm> <compiled>`.

fn main() -> std::process::ExitCode {
    weir_policy::compile_main()
}
