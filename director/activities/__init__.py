"""Everything that touches the world: sync methods of classes that the worker builds."""
