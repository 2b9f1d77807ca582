"""What grid solvers are made of: lattices, difference stencils, interpolation, time steps, Howard's iteration."""
