//! Wants to look at pages, which it is not granted.

fn misbehave() {
    weir_sdk::rasterizer::text("another tenant's document", 1).ok();
}

weir_hostile::in_every_role!(misbehave);
