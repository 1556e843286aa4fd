//! Asks the host without end.

use weir_hostile::attack;

weir_hostile::in_every_role!(attack::questions);
