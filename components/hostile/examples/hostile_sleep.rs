//! Sleeps for a day, and then for another.

use weir_hostile::attack;

weir_hostile::in_every_role!(attack::sleep);
