//! Takes memory until there is no more.

fn misbehave() {
    loop {
        std::hint::black_box(vec![1_u8; 1 << 20].leak());
    }
}

weir_hostile::in_every_role!(misbehave);
