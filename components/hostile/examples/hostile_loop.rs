//! Never answers.

fn misbehave() {
    loop {
        std::hint::black_box(());
    }
}

weir_hostile::in_every_role!(misbehave);
