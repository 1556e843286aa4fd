//! Never answers.

use weir_hostile::attack;

weir_hostile::in_every_role!(attack::endless);
