//! Takes memory until there is no more.

use weir_hostile::attack;

weir_hostile::in_every_role!(attack::memory);
