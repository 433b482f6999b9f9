mod containers;
mod images;
mod opening;
mod shared;
mod snapshots;
