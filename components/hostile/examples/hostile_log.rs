//! Writes more lines, and longer ones, than the log takes.

fn misbehave() {
    let line = "a".repeat(10_000);
    for _ in 0..2_000 {
        weir_sdk::log::info(&line);
    }
}

weir_hostile::in_every_role!(misbehave);
