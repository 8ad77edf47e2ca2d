"""Write ISM scores as other tools read them: tf-modisco-lite, genome browsers, bedtools, chrombpnet's tools.

Each format is a module: `modisco`, `tracks` (bigWig, bedGraph), `regions` (BED), `chrombpnet` (HDF5). `formats`
lists them.
"""
