mod containers;
mod images;
mod opening;
mod snapshots;
