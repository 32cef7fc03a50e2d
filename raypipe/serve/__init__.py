"""The online service: the stages of the job as Ray Serve deployments behind HTTP and DICOMweb."""
