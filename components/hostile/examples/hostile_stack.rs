//! Calls itself until the stack is full.

fn misbehave() {
    std::hint::black_box(deeper(0));
}

#[allow(unconditional_recursion)]
fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 8]);
    deeper(std::hint::black_box(depth + 1)) + frame.iter().sum::<u64>()
}

weir_hostile::in_every_role!(misbehave);
