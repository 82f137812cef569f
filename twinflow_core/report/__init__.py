"""What a person looks at after a run: the image grid, the plots and the HTML report."""
