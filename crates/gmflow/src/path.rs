//! Forward process, transitions and velocity to data conversions.
