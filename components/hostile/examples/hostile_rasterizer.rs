//! Imports `rasterizer`, a capability that it is not granted.

fn call_ungranted_rasterizer() {
    weir_sdk::rasterizer::text("another tenant's document", 1).ok();
}

weir_hostile::attack_in_every_role!(call_ungranted_rasterizer);
