"""One sitting at the microscope: references, corrections in order, statistics."""
